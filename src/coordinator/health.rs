//! Whether a coordinator is at work.

/// Its life as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It reads its state; nobody is answered yet.
    #[default]
    Starting,
    Serving,
    /// Why not; it tries again by itself.
    Down(String),
}

impl Health {
    /// Why it does not serve; `None` when it does.
    pub fn fault(&self) -> Option<&str> {
        match self {
            Health::Starting => Some("it is starting"),
            Health::Serving => None,
            Health::Down(reason) => Some(reason),
        }
    }
}
