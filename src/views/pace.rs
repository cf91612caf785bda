//! How work that takes long on a core makes room for others.

/// Lets other work of the core go on.
pub trait Pace {
    /// Whether the slice is used up. Asked after every row; must be cheap.
    fn due(&mut self) -> bool;
    /// Lets others run.
    fn rest(&mut self) -> impl Future<Output = ()>;
}

/// Never rests: for tests and tools.
pub struct NoPace;

impl Pace for NoPace {
    fn due(&mut self) -> bool {
        false
    }
    async fn rest(&mut self) {}
}
