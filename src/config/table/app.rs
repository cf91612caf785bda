//! Which app, which publications, which shard.

use super::super::option::{Opt, list, text, whole};
use super::options;

options! {
    APP_ID = text("app.id").default("zero").doc(
        "Names everything that this server creates in Postgres: the schemas <app> and <app>_<shard>, and \
         the replication slots <app>_<shard>_a, _b, … Lower-case letters, digits and underscores. Give \
         each app that shares a database its own.");
    APP_PUBLICATIONS = list("app.publications").derived("a publication of all tables in schema public").doc(
        "The Postgres publications to replicate, created by you. Without it one is created that holds all \
         tables of schema public. A changed list makes the next start copy the data again.");
    SHARD_NUM = whole("shard.num", 0, i32::MAX as i64).default("0").hidden().doc(
        "Number of the shard; part of the names made from --app-id. Shards do not divide the data.");
}
