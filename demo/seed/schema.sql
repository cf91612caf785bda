-- Issue tracker: what the sample app, the end-to-end tests and the load
-- generator work on.
create type user_role as enum ('admin', 'member', 'guest');
create type issue_status as enum ('open', 'in_progress', 'done', 'wontfix');

create table users (
  id text primary key,
  name text not null,
  email text unique,
  role user_role not null default 'member',
  created_at timestamptz not null default now()
);

create table projects (
  id text primary key,
  key text not null unique,
  name text not null,
  owner_id text,
  archived boolean not null default false
);

create table issues (
  id text primary key,
  project_id text not null,
  num integer not null,
  title text not null,
  body text,
  status issue_status not null default 'open',
  priority integer not null default 0,
  estimate double precision,
  creator_id text not null,
  assignee_id text,
  meta jsonb,
  -- Counts edits: two people who look at one issue can tell which is newer.
  rev bigint not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (project_id, num)
);
create index issues_created on issues (created_at desc, id);
create index issues_project_updated on issues (project_id, updated_at desc);
create index issues_assignee on issues (assignee_id);
create index issues_creator on issues (creator_id);
create index issues_status on issues (status);

create table comments (
  id text primary key,
  issue_id text not null,
  author_id text,
  body text not null,
  created_at timestamptz not null default now()
);
create index comments_issue on comments (issue_id, created_at);
create index comments_author on comments (author_id);

create table labels (
  id text primary key,
  name text not null unique,
  color text
);

create table issue_labels (
  issue_id text not null,
  label_id text not null,
  primary key (issue_id, label_id)
);
create index issue_labels_label on issue_labels (label_id);
