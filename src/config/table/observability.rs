//! Logs, telemetry, identity of the instance.

use super::super::option::{Opt, boolean, choice, number, text};
use super::options;

const NO_EVENTS: &str = "status events are not sent.";

options! {
    LOG_LEVEL = choice("log.level", &["debug", "info", "warn", "error"]).default("info").doc(
        "Least severe level that is logged. debug and info go to standard output, warn and error to \
         standard error.");
    LOG_FORMAT = choice("log.format", &["text", "json"]).default("text").doc(
        "text for people, json (one object per line) for log collectors.");
    LOG_SLOW_HYDRATE_THRESHOLD = number("log.slow-hydrate-threshold").default("100").doc(
        "Warn of a query whose first evaluation took more milliseconds than this, with SQLite's plan of it: once in \
         ten seconds for each core; the others meanwhile are info.");
    LOG_SLOW_ROW_THRESHOLD = number("log.slow-row-threshold").default("2")
        .not_yet("single reads are not timed.")
        .doc(
        "Warn of a read of the replica that took more milliseconds than this.");
    LOG_IVM_SAMPLING = number("log.ivm-sampling").default("5000")
        .not_yet("reads are not sampled.")
        .doc("Time one in this many reads of the replica.");
    TASK_ID = text("task-id").derived("random").doc(
        "Name of this instance in logs and in the records that nodes share. Unique among running instances.");
    SERVER_VERSION = text("server-version").derived("the version of this program").doc(
        "Version that is logged and reported to the inspector.");
    ENABLE_TELEMETRY = boolean("enable-telemetry").default("true")
        .ignored("Kelvin never sends telemetry to anybody.")
        .doc("Anonymous usage reports to the makers of the reference.");
    CLOUD_EVENT_SINK_ENV = text("cloud-event.sink-env").not_yet(NO_EVENTS).doc(
        "Name of the environment variable that holds the URI to send status events to.");
    CLOUD_EVENT_EXTENSION_OVERRIDES_ENV = text("cloud-event.extension-overrides-env")
        .not_yet(NO_EVENTS)
        .doc("Name of the environment variable that holds additions to those events.");
}
