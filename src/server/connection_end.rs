//! The end of an old connection: its streams end with a status instead of a reset.

use std::pin::Pin;

use tokio::sync::watch;

/// An extension of each request on a connection with a maximum age. Fires when the streams of
/// the connection are to end.
#[derive(Clone, Debug)]
pub(super) struct ConnectionEnd(watch::Receiver<bool>);

/// Completes when the streams of the connection are to end.
pub(super) type EndReached = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ConnectionEnd {
    /// Returns the sender of the connection, and what its requests hold.
    pub(super) fn new() -> (watch::Sender<bool>, Self) {
        let (end, receiver) = watch::channel(false);
        (end, Self(receiver))
    }

    /// Returns the future of a request, if its connection has a maximum age.
    pub(super) fn of(extensions: &http::Extensions) -> Option<EndReached> {
        let mut end = extensions.get::<Self>()?.clone();
        Some(Box::pin(async move {
            // Without its sender the connection is closed, and its streams are dropped.
            if end.0.wait_for(|ended| *ended).await.is_err() {
                std::future::pending::<()>().await;
            }
        }))
    }
}

/// Waits for the end of the connection; forever if it has no maximum age.
pub(super) async fn reached(end: Option<EndReached>) {
    match end {
        Some(end) => end.await,
        None => std::future::pending().await,
    }
}
