//! The functions behind the event triggers, as zero-cache calls them (`docs/spec/replication.md` §3.3).
//!
//! An ordinary role that changes a table of its own may not use the shard's schema, so they run as their owner, with a
//! search path that nobody else can put anything into. None of them may make an app's migration fail or wait long: what
//! goes wrong in them is written into Postgres' log, and the change is found by looking.

use crate::model::catalogue::quote;
use crate::upstream::decode::LOOK_SUFFIX;
use crate::upstream::shard::Shard;

/// The search path of all of them, as `pg_proc.proconfig` shows it.
pub const SEARCH_PATH: &str = "search_path=pg_catalog, pg_temp";

/// How often a transaction asks, 10 ms apart, for the schema that another open one holds. It never waits in the lock
/// queue: whoever waits there can be killed as part of a deadlock, and that would be the app's migration.
const ATTEMPTS: u32 = 25;

/// A function of the shard's schema.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Its parameters, as `pg_get_function_identity_arguments` writes them.
    pub arguments: &'static str,
    returns: &'static str,
    language: &'static str,
    /// What Postgres keeps as `pg_proc.prosrc`.
    pub body: String,
}

impl Function {
    fn new(name: &'static str, arguments: &'static str, returns: &'static str, body: String) -> Function {
        Function { name, arguments, returns, language: "plpgsql", body }
    }

    fn create(&self, schema: &str) -> String {
        let Function { name, arguments, returns, language, body } = self;
        format!(
            "CREATE OR REPLACE FUNCTION {schema}.{name}({arguments}) RETURNS {returns} LANGUAGE {language}
             SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $kelvin${body}$kelvin$;\n"
        )
    }
}

/// Statements that make all of it.
pub fn create_all(shard: &Shard, functions: &[Function]) -> String {
    let schema = quote(&shard.schema());
    let mut sql = format!("DROP FUNCTION IF EXISTS {schema}.schema_specs();\n");
    let is_before = |function: &&Function| function.name == "schema_specs";
    sql.extend(functions.iter().filter(is_before).map(|function| function.create(&schema)));
    sql.push_str(&format!(
        r#"
        CREATE TABLE IF NOT EXISTS {schema}."publishedSchema" (
            current JSON,
            exists BOOL PRIMARY KEY DEFAULT true CHECK (exists)
        );
        INSERT INTO {schema}."publishedSchema" (current) VALUES ({schema}.schema_specs())
            ON CONFLICT (exists) DO UPDATE SET current = excluded.current;
        "#
    ));
    sql.extend(functions.iter().filter(|f| !is_before(f)).map(|function| function.create(&schema)));
    sql
}

/// All of them, as they should be.
pub fn all(shard: &Shard) -> Vec<Function> {
    let schema = quote(&shard.schema());
    let prefix = shard.message_prefix();
    let publications = shard.publications().iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ");
    let fill = |text: &str| {
        text.replace("{schema}", &schema)
            .replace("{prefix}", &prefix)
            .replace("{look}", LOOK_SUFFIX)
            .replace("{publications}", &publications)
            .replace("{attempts}", &ATTEMPTS.to_string())
    };
    let target = "event_type text, tag text, target record";
    let mut specs = Function::new("schema_specs", "", "json", fill(include_str!("schema_specs.sql")));
    specs.language = "sql STABLE";
    vec![
        Function::new("get_trigger_context", "", "record", fill(CONTEXT)),
        Function::new("notice_ignore", "reason text, tag text, target record", "void", fill(IGNORE)),
        specs,
        Function::new("update_schemas", target, "void", fill(UPDATE)),
        Function::new("update_schemas", "", "void", fill(BY_HAND)),
        Function::new("emit_ddl_start", "", "event_trigger", fill(START)),
        Function::new("emit_ddl_end", "", "event_trigger", fill(END)),
        Function::new("kelvin_ddl", "", "event_trigger", fill(LOOK)),
    ]
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

const CONTEXT: &str = r#"
DECLARE
    context record;
BEGIN
    SELECT coalesce(current_query(), 'unknown') AS "query" INTO context;
    RETURN context;
END
"#;

const IGNORE: &str = r#"
BEGIN
    RAISE DEBUG '% of % is not announced: %', tag, target, reason;
END
"#;

const UPDATE: &str = r#"
DECLARE
    before json;
    after json;
    attempts int := 0;
BEGIN
    IF event_type = 'ddlStart' THEN
        -- Version 2 need not repeat the schema as it was.
        PERFORM pg_logical_emit_message(true, '{prefix}/ddl', json_build_object(
            'type', event_type, 'version', 2, 'event', json_build_object('tag', tag),
            'context', {schema}.get_trigger_context())::text);
        RETURN;
    END IF;
    LOOP
        SELECT current INTO before FROM {schema}."publishedSchema" FOR UPDATE SKIP LOCKED;
        EXIT WHEN FOUND;
        IF attempts >= {attempts} THEN
            PERFORM pg_logical_emit_message(true, '{prefix}{look}', '');
            RETURN;
        END IF;
        attempts := attempts + 1;
        PERFORM pg_sleep(0.01);
    END LOOP;
    after := {schema}.schema_specs();
    IF before::text IS DISTINCT FROM after::text THEN
        UPDATE {schema}."publishedSchema" SET current = after;
    ELSIF event_type = 'ddlUpdate' THEN
        PERFORM {schema}.notice_ignore('it changes nothing that is published', tag, target);
        RETURN;
    END IF;
    PERFORM pg_logical_emit_message(true, '{prefix}/ddl', json_build_object(
        'type', event_type, 'version', 1, 'previousSchema', before, 'schema', after,
        'event', json_build_object('tag', tag), 'context', {schema}.get_trigger_context())::text);
END
"#;

const BY_HAND: &str = r#"
BEGIN
    PERFORM {schema}.update_schemas('schemaSnapshot', 'MANUAL', NULL);
EXCEPTION WHEN OTHERS THEN
    RAISE LOG '{prefix}: a change of the schema could not be announced: %', SQLERRM;
    PERFORM pg_logical_emit_message(true, '{prefix}{look}', '');
END
"#;

// Whatever is written before DROP INDEX CONCURRENTLY makes Postgres refuse it.
const START: &str = r#"
BEGIN
    IF TG_TAG <> 'DROP INDEX' THEN
        PERFORM {schema}.update_schemas('ddlStart', TG_TAG, NULL);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG '{prefix}: % could not be announced: %', TG_TAG, SQLERRM;
END
"#;

const END: &str = r#"
DECLARE
    target record;
BEGIN
    SELECT objid, object_type, object_identity INTO target FROM pg_event_trigger_ddl_commands() LIMIT 1;
    IF TG_TAG = 'COMMENT' THEN
        IF target.object_type = 'publication' AND EXISTS (SELECT FROM pg_publication
            WHERE oid = target.objid AND pubname = ANY (ARRAY[{publications}])) THEN
            PERFORM {schema}.update_schemas('schemaSnapshot', TG_TAG, target);
        END IF;
    ELSIF (SELECT bool_and(schema_name IS NOT DISTINCT FROM 'pg_temp') FROM pg_event_trigger_ddl_commands()) THEN
        PERFORM {schema}.notice_ignore('it is of this session alone', TG_TAG, target);
    ELSE
        PERFORM {schema}.update_schemas('ddlUpdate', TG_TAG, target);
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG '{prefix}: % could not be announced: %', TG_TAG, SQLERRM;
END
"#;

// It does not name what has changed: whoever looks sees that, and what other sessions have committed meanwhile.
const LOOK: &str = r#"
DECLARE
    is_temporary bool;
BEGIN
    IF TG_EVENT = 'sql_drop' THEN
        is_temporary := (SELECT bool_and(o.is_temporary) FROM pg_event_trigger_dropped_objects() o);
    ELSE
        is_temporary := (SELECT bool_and(schema_name IS NOT DISTINCT FROM 'pg_temp') FROM pg_event_trigger_ddl_commands());
    END IF;
    IF is_temporary IS NOT TRUE THEN
        PERFORM pg_logical_emit_message(true, '{prefix}{look}', '');
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE LOG '{prefix}: % could not be announced: %', TG_TAG, SQLERRM;
END
"#;
