//! The app's own endpoints: query transformation and mutation push, and CRUD mutations.

use super::super::option::{Opt, boolean, list, number, text};
use super::options;

const MUTATE: &str = "set ZERO_MUTATE_* instead; the values mean the same.";
const QUERY: &str = "set ZERO_QUERY_* instead; the values mean the same.";
const NO_LIMIT: &str = "CRUD mutations are not limited.";

options! {
    QUERY_URL = list("query.url").doc(
        "URL of your endpoint that turns query names and arguments into queries. Several, separated by \
         commas, are an allow-list: the first is the default, a client may name any URL that matches one of \
         them. Wildcards as in the web's URLPattern (https://*.example.com/api/query); what follows ? or # \
         is not compared.");
    QUERY_API_KEY = text("query.api-key").secret().doc(
        "Sent to the query endpoint as X-Api-Key, so that it knows who is calling.");
    QUERY_FORWARD_COOKIES = boolean("query.forward-cookies").default("false").doc(
        "Forward the cookies of the client's connection request to the query endpoint.");
    QUERY_ALLOWED_CLIENT_HEADERS = list("query.allowed-client-headers").doc(
        "Names of the headers that the client app may add to calls of the query endpoint. Default: none.");
    QUERY_ALLOWED_REQUEST_HEADERS = list("query.allowed-request-headers").doc(
        "Names of the headers of the client's connection request that are forwarded to the query endpoint. \
         Default: none.");
    MUTATE_URL = list("mutate.url").doc(
        "URL of your endpoint that runs custom mutators. Several, and wildcards, as in --query-url.");
    MUTATE_API_KEY = text("mutate.api-key").secret().doc("Sent to the mutate endpoint as X-Api-Key.");
    MUTATE_FORWARD_COOKIES = boolean("mutate.forward-cookies").default("false").doc(
        "Forward the cookies of the client's connection request to the mutate endpoint.");
    MUTATE_ALLOWED_CLIENT_HEADERS = list("mutate.allowed-client-headers").doc(
        "Names of the headers that the client app may add to calls of the mutate endpoint. Default: none.");
    MUTATE_ALLOWED_REQUEST_HEADERS = list("mutate.allowed-request-headers").doc(
        "Names of the headers of the client's connection request that are forwarded to the mutate endpoint. \
         Default: none.");
    ENABLE_CRUD_MUTATIONS = boolean("enable-crud-mutations").default("true")
        .not_yet("CRUD mutations are answered with an error, as with false.")
        .doc(
        "Execute the CRUD mutations of older apps directly on Postgres. With false they are answered with \
         an error, and no connections are opened for them.");
    PER_USER_MUTATION_LIMIT_MAX = number("per-user-mutation-limit.max").missing(NO_LIMIT).doc(
        "Largest number of CRUD mutations per client group within the window.");
    PER_USER_MUTATION_LIMIT_WINDOW_MS = number("per-user-mutation-limit.window-ms").default("60000")
        .not_yet(NO_LIMIT)
        .doc("Length of that window in milliseconds.");

    PUSH_URL = list("push.url").deprecated(MUTATE)
        .doc("As --mutate-url. When both are set, this one is used.");
    PUSH_API_KEY = text("push.api-key").secret().deprecated(MUTATE)
        .doc("As --mutate-api-key, when that is unset.");
    PUSH_FORWARD_COOKIES = boolean("push.forward-cookies").deprecated(MUTATE).doc(
        "As --mutate-forward-cookies, when that is unset.");
    PUSH_ALLOWED_CLIENT_HEADERS = list("push.allowed-client-headers").deprecated(MUTATE).doc(
        "As --mutate-allowed-client-headers, when that is unset.");
    PUSH_ALLOWED_REQUEST_HEADERS = list("push.allowed-request-headers").deprecated(MUTATE).doc(
        "As --mutate-allowed-request-headers, when that is unset.");
    GET_QUERIES_URL = list("get-queries.url").deprecated(QUERY).doc("As --query-url, when that is unset.");
    GET_QUERIES_API_KEY = text("get-queries.api-key").secret().deprecated(QUERY).doc(
        "As --query-api-key, together with --get-queries-url.");
    GET_QUERIES_FORWARD_COOKIES = boolean("get-queries.forward-cookies").deprecated(QUERY).doc(
        "As --query-forward-cookies, together with --get-queries-url.");
    GET_QUERIES_ALLOWED_CLIENT_HEADERS = list("get-queries.allowed-client-headers").deprecated(QUERY).doc(
        "As --query-allowed-client-headers, together with --get-queries-url.");
    GET_QUERIES_ALLOWED_REQUEST_HEADERS = list("get-queries.allowed-request-headers").deprecated(QUERY).doc(
        "As --query-allowed-request-headers, together with --get-queries-url.");
}
