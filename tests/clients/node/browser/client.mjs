// What the README's page gets from a public address.
export { wsconnect } from "@nats-io/nats-core";
