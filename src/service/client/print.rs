//! Prints each request on stderr, for `-v 6`.

use std::{
    fmt::Display,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use hyper::{Request, Response};
use tower::{Layer, Service};

/// Prints method, URL, status and duration of each request. Headers and bodies, which may contain secrets, are not printed.
#[derive(Clone, Copy)]
pub struct PrintRequests;

impl<S> Layer<S> for PrintRequests {
    type Service = Printing<S>;

    fn layer(&self, inner: S) -> Printing<S> {
        Printing(inner)
    }
}

/// The service of [`PrintRequests`].
#[derive(Clone)]
pub struct Printing<S>(S);

impl<S, B, R> Service<Request<B>> for Printing<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Display,
{
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;
    type Response = Response<R>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let line = format!("{} {}", request.method(), request.uri());
        let (start, response) = (Instant::now(), self.0.call(request));
        Box::pin(async move {
            let response = response.await;
            let milliseconds = start.elapsed().as_millis();
            match &response {
                Ok(response) => eprintln!("{line} {} in {milliseconds} milliseconds", response.status()),
                Err(error) => eprintln!("{line} failed in {milliseconds} milliseconds: {error}"),
            }
            response
        })
    }
}
