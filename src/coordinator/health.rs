//! Whether a coordinator is at work.

/// Its life as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It reads its state; nobody is answered yet.
    #[default]
    Starting,
    Serving,
    /// Another one serves; which, for people.
    Standby(String),
    /// Why not; it tries again by itself.
    Down(String),
}

impl Health {
    /// Why nobody serves, as far as it knows; `None` when it does, or stands by for another.
    pub fn fault(&self) -> Option<&str> {
        match self {
            Health::Starting => Some("it is starting"),
            Health::Serving | Health::Standby(_) => None,
            Health::Down(reason) => Some(reason),
        }
    }
}
