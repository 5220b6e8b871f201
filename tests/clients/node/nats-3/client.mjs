// What differs in nats.js 3: a package for each part.
import { jetstream as open, jetstreamManager as manage } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { NoRespondersError, RequestError } from "@nats-io/transport-node";

export { connect, headers } from "@nats-io/transport-node";
export { AckPolicy, StorageType } from "@nats-io/jetstream";
export const jetstream = (nc) => open(nc);
export const jetstreamManager = (nc) => manage(nc);
export const createBucket = (nc, name, options) => new Kvm(nc).create(name, options);
export const createStore = (nc, name) => new Objm(nc).create(name);
export const noResponders = (error) =>
  error instanceof NoRespondersError || (error instanceof RequestError && error.isNoResponders());
export const errorCode = (error) => error.code;
