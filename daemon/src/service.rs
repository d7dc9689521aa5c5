//! A running program, as its control plane sees it.

/// What serves the control plane's clients. Clones are handles to the same program.
pub trait Service: Clone + Send + Sync + 'static {
    /// The metrics page; `None` if the serving threads do not answer in time.
    fn figures(&self) -> impl Future<Output = Option<String>> + Send;

    /// Whether the service manager is to be told that all is well.
    fn is_well(&self) -> impl Future<Output = bool> + Send;
}
