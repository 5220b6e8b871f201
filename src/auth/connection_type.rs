//! How a client came in, as `allowed_connection_types` names it.

/// See the module; the names are nats-server's (`jwt.ConnectionTypeStandard` and on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionType {
    Standard,
    WebSocket,
    /// A type of client that is not served: nobody comes in by it.
    Other,
    InProcess,
}

impl ConnectionType {
    /// # Errors
    /// When no such type exists.
    pub fn parse(name: &str) -> Result<ConnectionType, String> {
        match name.to_ascii_uppercase().as_str() {
            "STANDARD" => Ok(ConnectionType::Standard),
            "WEBSOCKET" => Ok(ConnectionType::WebSocket),
            "IN_PROCESS" | "INPROCESS" => Ok(ConnectionType::InProcess),
            "LEAFNODE" | "LEAFNODE_WS" | "MQTT" | "MQTT_WS" => Ok(ConnectionType::Other),
            _ => Err(format!("invalid connection type {name:?}")),
        }
    }
}
