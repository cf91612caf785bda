// Tables and rows of the issue tracker, from demo/seed.
import {fileURLToPath} from 'node:url';

const file = name => fileURLToPath(new URL(`../../demo/seed/${name}`, import.meta.url));

export const DEMO_SIZE = {issues: 12_000, comments: 60_000, users: 200, projects: 12};

export async function seed(postgres, size = DEMO_SIZE, database = 'app') {
  await postgres.run(`create database "${database}"`, 'postgres');
  const counts = Object.entries(size).flatMap(([name, n]) => ['-v', `${name}=${n}`]);
  await postgres.psql(database, ['-f', file('schema.sql')]);
  await postgres.psql(database, [...counts, '-f', file('seed.sql')]);
}
