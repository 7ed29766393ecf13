//! Answers that are too large for memory: their bodies come piece by piece, within a size and not slower than a pace.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use http::header;
use stoa_event::ids::ServerName;
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    Error, Remote,
    caller::{Caller, read_error},
    transport::{Limits, TransportError},
};

/// The body of an answer, piece by piece.
pub type Pieces = BoxStream<'static, Result<Bytes, TransportError>>;

/// How much is read of an answer that says why there is none.
const MAX_REFUSAL: usize = 64 * 1024;

/// How long such an answer may take, and how large it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long its head may take.
    pub head: Duration,
    /// How long its body may take beside the time that its bytes may.
    pub grace: Duration,
    /// How many bytes a second come at least.
    pub bytes_per_second: u64,
    /// Bytes of the body, after decompression.
    pub max_bytes: usize,
}

impl Pace {
    /// The time in which that much of the body must have come, and some more.
    fn time_for(&self, bytes: u64) -> Duration {
        self.grace + Duration::from_secs(bytes / self.bytes_per_second.max(1))
    }

    fn limits(&self) -> Limits {
        let timeout = self.head + self.time_for(self.max_bytes as u64);
        Limits { timeout, max_bytes: self.max_bytes }
    }

    /// Holds an answer to this pace, whoever carries it.
    fn hold(self, answer: http::Response<Pieces>) -> Result<http::Response<Pieces>, TransportError> {
        let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if length.and_then(|length| length.parse().ok()).is_some_and(|length: u64| length > self.max_bytes as u64) {
            return Err(TransportError::TooLarge(self.max_bytes));
        }
        Ok(answer.map(|body| self.hold_body(body)))
    }

    fn hold_body(self, body: Pieces) -> Pieces {
        let start = Instant::now();
        let next = move |(mut body, seen): (Pieces, u64)| async move {
            let until = start + self.time_for(seen);
            let piece = timeout_at(until, body.next()).await.map_err(|_| TransportError::Timeout)?;
            let Some(piece) = piece.transpose()? else { return Ok(None) };
            let seen = seen + piece.len() as u64;
            if seen > self.max_bytes as u64 {
                return Err(TransportError::TooLarge(self.max_bytes));
            }
            Ok(Some((piece, (body, seen))))
        };
        stream::try_unfold((body, 0), next).boxed()
    }
}

/// A body that is there whole.
pub(crate) fn whole(body: Bytes) -> Pieces {
    stream::iter([Ok(body)]).boxed()
}

impl Remote {
    /// Asks another server for something large; `signed` says whether as ourselves. The answer is one of success, or a
    /// redirect. Only a server that is not there is left alone afterwards: files are often on another machine.
    ///
    /// # Errors
    /// As [`Remote::call`]; the body can fail too.
    pub async fn open(
        &self,
        to: &ServerName,
        request: http::Request<Bytes>,
        signed: bool,
        pace: Pace,
    ) -> Result<http::Response<Pieces>, Error> {
        self.caller.open(to, request, signed, pace).await
    }

    /// Gets something large from a URL that another server named: HTTPS, a public address, a few redirects.
    ///
    /// # Errors
    /// Where there is no answer. Its status may be any; the body can fail too.
    pub async fn open_url(&self, url: &str, pace: Pace) -> Result<http::Response<Pieces>, Error> {
        let answer = timeout(pace.head, self.caller.transport.open_url(url, pace.limits())).await;
        Ok(pace.hold(answer.unwrap_or(Err(TransportError::Timeout))?)?)
    }
}

impl Caller {
    async fn open(
        &self,
        to: &ServerName,
        mut request: http::Request<Bytes>,
        signed: bool,
        pace: Pace,
    ) -> Result<http::Response<Pieces>, Error> {
        self.prepare(to, &mut request, signed)?;
        let attempt = self.destinations.begin(to, false, pace.head).await?;
        tracing::debug!(%to, path = request.uri().path(), "asking another server for something large");
        let answer = timeout(pace.head, self.transport.open(to, request, pace.limits())).await;
        match answer.unwrap_or(Err(TransportError::Timeout)) {
            Ok(answer) if answer.status().is_success() || answer.status().is_redirection() => {
                attempt.succeeded().await;
                Ok(pace.hold(answer)?)
            }
            Ok(answer) => {
                let (parts, body) = answer.into_parts();
                let body = beginning(Pace { max_bytes: usize::MAX, ..pace }.hold_body(body)).await?;
                let answer = read_error(http::Response::from_parts(parts, body));
                // Also one that is for later, as for a file that is still to come.
                if answer.errcode.is_some() {
                    attempt.succeeded().await;
                }
                Err(Error::Answer(Box::new(answer)))
            }
            Err(why) => {
                tracing::debug!(%to, %why, "another server did not answer");
                if matches!(why, TransportError::Connect(_) | TransportError::Resolve(_)) {
                    attempt.failed().await;
                }
                Err(why.into())
            }
        }
    }
}

/// The first bytes of a body.
async fn beginning(mut body: Pieces) -> Result<Bytes, TransportError> {
    let mut read = BytesMut::new();
    while let Some(piece) = body.try_next().await? {
        let room = MAX_REFUSAL - read.len();
        read.extend_from_slice(&piece[..piece.len().min(room)]);
        if read.len() == MAX_REFUSAL {
            break;
        }
    }
    Ok(read.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace =
        Pace { head: Duration::from_secs(5), grace: Duration::from_secs(10), bytes_per_second: 100, max_bytes: 2_500 };

    /// A body of pieces so long, each after so many seconds.
    fn dripping(pieces: usize, length: usize, seconds: u64) -> Pieces {
        let drip = move |n: usize| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            (n > 0).then(|| (Ok(Bytes::from(vec![1; length])), n - 1))
        };
        stream::unfold(pieces, drip).boxed()
    }

    async fn read(body: Pieces) -> Result<usize, TransportError> {
        PACE.hold_body(body).try_fold(0, async |sum, piece: Bytes| Ok(sum + piece.len())).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_keeps_the_pace_comes_whole() {
        assert_eq!(read(dripping(20, 100, 1)).await, Ok(2000));
        // A pause is fine where much has come before.
        let body = stream::iter([Ok(Bytes::from(vec![1; 1000]))]).chain(dripping(1, 5, 9)).boxed();
        assert_eq!(read(body).await, Ok(1005));
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_drips_is_given_up_soon() {
        let start = Instant::now();
        assert_eq!(read(dripping(1_000_000, 1, 1)).await, Err(TransportError::Timeout));
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
        assert_eq!(read(stream::pending().boxed()).await, Err(TransportError::Timeout));
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_read_further() {
        assert_eq!(read(dripping(25, 100, 0)).await, Ok(2500));
        assert_eq!(read(dripping(usize::MAX, 100, 0)).await, Err(TransportError::TooLarge(2500)));
        let said = http::Response::builder().header("content-length", "2501").body(whole(Bytes::new())).unwrap();
        assert_eq!(PACE.hold(said).map(drop), Err(TransportError::TooLarge(2500)));
    }
}
