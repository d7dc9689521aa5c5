//! A running program, as its control plane sees it.

use crate::orders::Orders;
use crate::request::Request;

/// What a service answers.
pub type Response<S> = <<S as Service>::Request as Request>::Response;

/// What serves the control plane's clients. Clones are handles to the same program.
pub trait Service: Clone + Send + Sync + 'static {
    /// What it may be asked.
    type Request: Request;

    /// The answer to a request. Who asks for the end is answered at once, and can then wait for
    /// [`Orders::end`].
    fn answer(&self, request: Self::Request) -> impl Future<Output = Response<Self>> + Send;

    /// What may be asked of the program as a whole.
    fn orders(&self) -> &Orders<Response<Self>>;

    /// The metrics page; `None` if the serving threads do not answer in time.
    fn figures(&self) -> impl Future<Output = Option<String>> + Send;

    /// Whether the service manager is to be told that all is well.
    fn is_well(&self) -> impl Future<Output = bool> + Send;
}
