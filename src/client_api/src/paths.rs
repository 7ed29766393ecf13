//! Paths as the specification writes them, with the prefixes in front.

use axum::{Router, routing::MethodRouter};

use crate::Api;

/// Adds routes below `/_matrix/client`. Path parameters have the names that the specification gives them: `{roomId}`.
pub(crate) trait Paths {
    /// `/_matrix/client/v3`, and `/_matrix/client/r0` for older clients.
    fn v3(self, path: &str, methods: MethodRouter<Api>) -> Self;
    /// `/_matrix/client/v1`
    fn v1(self, path: &str, methods: MethodRouter<Api>) -> Self;
    /// `/_matrix/client/unstable`
    fn unstable(self, path: &str, methods: MethodRouter<Api>) -> Self;
}

impl Paths for Router<Api> {
    fn v3(self, path: &str, methods: MethodRouter<Api>) -> Self {
        self.route(&format!("/_matrix/client/v3{path}"), methods.clone())
            .route(&format!("/_matrix/client/r0{path}"), methods)
    }

    fn v1(self, path: &str, methods: MethodRouter<Api>) -> Self {
        self.route(&format!("/_matrix/client/v1{path}"), methods)
    }

    fn unstable(self, path: &str, methods: MethodRouter<Api>) -> Self {
        self.route(&format!("/_matrix/client/unstable{path}"), methods)
    }
}
