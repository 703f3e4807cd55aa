//! The contract between those who ask (recipes, evaluation, the command line) and the
//! engine that answers; a scripted fake implements it in tests.

use crate::{Completion, Generate, RequestError, Score, Scores};
use futures::channel::oneshot;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Whatever answers requests. Requests may be made from any thread and are answered in
/// any order; each fails alone.
pub trait Generator: Send + Sync {
    /// Asks for `request.n` completions, returned in sample order.
    fn generate(&self, request: Generate) -> Pending<Vec<Completion>>;
    /// Asks for label probabilities.
    fn score(&self, request: Score) -> Pending<Scores>;
}

/// An answer that is on its way: a future, or block on [`Pending::wait`]. Dropping it
/// cancels the request.
#[derive(Debug)]
#[must_use = "dropping a pending answer cancels the request"]
pub struct Pending<T>(oneshot::Receiver<Result<T, RequestError>>);

/// The engine's end of a [`Pending`].
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<Result<T, RequestError>>);

/// A connected pair.
pub fn pending<T>() -> (Reply<T>, Pending<T>) {
    let (sender, receiver) = oneshot::channel();
    (Reply(sender), Pending(receiver))
}

impl<T> Reply<T> {
    /// Delivers the answer; a receiver that has gone is no error.
    pub fn send(self, answer: Result<T, RequestError>) {
        drop(self.0.send(answer));
    }

    /// True once the other end was dropped: nobody wants the answer any more.
    pub fn is_canceled(&self) -> bool {
        self.0.is_canceled()
    }
}

impl<T> Pending<T> {
    /// Blocks the calling thread until the answer is there.
    ///
    /// # Errors
    /// Why the request failed.
    pub fn wait(self) -> Result<T, RequestError> {
        futures::executor::block_on(self)
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|received| received.unwrap_or(Err(RequestError::EngineStopped)))
    }
}
