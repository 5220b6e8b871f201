// What differs in nats.js 2: one package, everything reached from the connection.
export { connect, headers, AckPolicy, StorageType } from "nats";
export const jetstream = (nc) => nc.jetstream();
export const jetstreamManager = (nc) => nc.jetstreamManager();
export const createBucket = (nc, name, options) => nc.jetstream().views.kv(name, options);
export const createStore = (nc, name) => nc.jetstream().views.os(name);
export const noResponders = (error) => error.code === "503";
export const errorCode = (error) => error.api_error?.err_code;
