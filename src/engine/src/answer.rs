//! An answer that may already be there.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;

use crate::Result;

/// What an engine answers: at once, without a heap allocation, when the data is in memory; as a future when not.
pub enum Answer<'a, T> {
    /// It is there. `None` after it was taken.
    Now(Option<Result<T>>),
    /// It comes.
    Later(BoxFuture<'a, Result<T>>),
}

impl<'a, T> Answer<'a, T> {
    /// An answer that is there.
    pub fn now(result: Result<T>) -> Self {
        Answer::Now(Some(result))
    }

    /// An answer that comes.
    pub fn later(future: impl Future<Output = Result<T>> + Send + 'a) -> Self {
        Answer::Later(Box::pin(future))
    }
}

impl<T: Unpin> Future for Answer<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Answer::Now(result) => match result.take() {
                Some(result) => Poll::Ready(result),
                // Polled again after it was ready: a future may do as it likes then.
                None => Poll::Pending,
            },
            Answer::Later(future) => future.as_mut().poll(cx),
        }
    }
}
