
WITH shown AS MATERIALIZED (
    SELECT c.oid, n.nspname, c.relnamespace, c.relname, c.relreplident, p.pubname, p.attnames, p.rowfilter
      FROM pg_publication_tables p
      JOIN pg_namespace n ON n.nspname = p.schemaname
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
     WHERE p.pubname = ANY (ARRAY[{publications}])
), known AS (
    SELECT a.attrelid, a.attnum, a.attname
      FROM (SELECT DISTINCT s.oid, u.name FROM shown s, unnest(s.attnames) u (name)) p
      JOIN pg_attribute a ON a.attrelid = p.oid AND a.attname = p.name
     WHERE a.attgenerated = '' OR current_setting('server_version_num')::int >= 160000
), columns AS MATERIALIZED (
    SELECT k.attrelid, array_agg(k.attnum) AS numbers, json_object_agg(k.attname, jsonb_build_object(
               'pos', k.attnum,
               'dataType', CASE a.attndims WHEN 0 THEN t.typname::text
                           ELSE substr(t.typname, 2) || repeat('[]', a.attndims) END,
               'pgTypeClass', t.typtype,
               'elemPgTypeClass', e.typtype,
               'typeOID', a.atttypid::int8,
               'characterMaximumLength', CASE WHEN a.atttypmod = -1 THEN NULL
                   WHEN a.atttypid IN ('varchar'::regtype, 'bpchar'::regtype) THEN a.atttypmod - 4
                   ELSE a.atttypmod END,
               'notNull', a.attnotnull,
               'dflt', pg_get_expr(d.adbin, d.adrelid)
           ) ORDER BY k.attname) AS list
      FROM known k
      JOIN pg_attribute a ON a.attrelid = k.attrelid AND a.attnum = k.attnum
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_type e ON e.oid = t.typelem
      LEFT JOIN pg_attrdef d ON d.adrelid = k.attrelid AND d.adnum = k.attnum
     GROUP BY k.attrelid
), tables AS (
    SELECT s.nspname, s.relname, json_build_object(
               'oid', s.oid::int8,
               'schema', s.nspname,
               'schemaOID', s.relnamespace::int8,
               'name', s.relname,
               'replicaIdentity', s.relreplident,
               'columns', c.list,
               'primaryKey', ARRAY(
                   SELECT a.attname
                     FROM pg_constraint p, unnest(p.conkey) WITH ORDINALITY key (attnum, place), pg_attribute a
                    WHERE p.conrelid = s.oid AND p.contype = 'p' AND key.attnum = ANY (c.numbers)
                      AND a.attrelid = s.oid AND a.attnum = key.attnum
                    ORDER BY key.place),
               'publications', s.publications
           ) AS spec
      FROM (SELECT oid, nspname, relnamespace, relname, relreplident,
                   json_object_agg(pubname, jsonb_build_object('rowFilter', rowfilter) ORDER BY pubname) AS publications
              FROM shown GROUP BY oid, nspname, relnamespace, relname, relreplident) s
      JOIN columns c ON c.attrelid = s.oid
), indexes AS (
    SELECT n.nspname, t.relname, x.relname AS name, json_build_object(
               'schema', n.nspname,
               'tableName', t.relname,
               'name', x.relname,
               'unique', i.indisunique,
               'isPrimaryKey', i.indisprimary,
               'isReplicaIdentity', i.indisreplident,
               'isImmediate', i.indimmediate,
               'columns', (
                   SELECT json_object_agg(a.attname, CASE i.indoption[key.place - 1] & 1 WHEN 1 THEN 'DESC' ELSE 'ASC' END
                                          ORDER BY key.place)
                     FROM unnest(i.indkey::int2[]) WITH ORDINALITY key (attnum, place)
                     JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.attnum
                    WHERE key.place <= i.indnkeyatts)
           ) AS spec
      FROM columns k
      JOIN pg_index i ON i.indrelid = k.attrelid
      JOIN pg_class x ON x.oid = i.indexrelid
      JOIN pg_class t ON t.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = t.relnamespace
     WHERE i.indexprs IS NULL AND i.indpred IS NULL
       AND NOT EXISTS (
           SELECT FROM unnest(i.indkey::int2[]) WITH ORDINALITY key (attnum, place)
            WHERE key.place <= i.indnkeyatts AND key.attnum <> ALL (k.numbers))
       -- Whoever refers to a unique index has a constraint on it too.
       AND (SELECT count(*) = 0 OR bool_or(c.contype IN ('p', 'u')) FROM pg_constraint c WHERE c.conindid = i.indexrelid)
)
SELECT json_build_object(
    'tables', coalesce((SELECT json_agg(spec ORDER BY nspname, relname) FROM tables), '[]'),
    'indexes', coalesce((SELECT json_agg(spec ORDER BY nspname, relname, name) FROM indexes), '[]'))
