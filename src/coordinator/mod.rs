//! L6: tasks, leases, agents: pure machines and a service that is a NATS client.
