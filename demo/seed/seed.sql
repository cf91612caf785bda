-- Fills the issue tracker. Every value is computed from its row number, so two
-- databases with the same counts hold the same rows.
--
-- The counts are placeholders, for `psql -v issues=10000 ...` as well as for a
-- program that replaces the text:  :users  :projects  :issues  :comments
--
-- Row keys are predictable: u0, p0, l0, i0000000, c00000000 and so on; issue i
-- belongs to project i % :projects.

-- A number below n that looks random and is not. (The functions last as long as
-- the session, and are inlined.)
create function pg_temp.mix(i bigint, salt bigint, n bigint) returns bigint
  language sql immutable parallel safe
  return (hashint8extended(i, salt) & 2147483647) % n;

create function pg_temp.pick(words text[], i bigint, salt bigint) returns text
  language sql immutable parallel safe
  return words[1 + pg_temp.mix(i, salt, cardinality(words))];

insert into users (id, name, email, role, created_at)
select 'u' || i,
       -- First names repeat after 40 people, surnames after 1,480.
       (array['Ada','Björn','Chloé','Dmitri','Ève','Farid','Gül','Håkon','Ines','Jürgen',
              'Kamala','Liam','Mei','Nadia','Oskar','Priya','Quentin','Rosa','Samir','Tove',
              'Ulrich','Vera','Wanjiru','Ximena','Yusuf','Zofia','Amara','Bilal','Carmen','Diego',
              'Elif','Finn','Greta','Hiro','Isla','Jonas','Keiko','Lena','Mateo','Noor'])[1 + i % 40]
         || ' ' ||
       (array['Lindqvist','Okafor','Moreau','Petrov','Haddad','Yılmaz','Nygård','Silva','Bauer','Rao',
              'Murphy','Chen','Rahman','Holm','Iyer','Lefèvre','Romano','Aziz','Berg','Keller',
              'Novak','Mwangi','Ortiz','Demir','Kowalska','Diallo','Hussain','Reyes','Vargas','Aydın',
              'Byrne','Schulz','Tanaka','Fraser','Meyer','Sato','Fischer'])[1 + (i / 40 + i) % 37]
         || case when i >= 1480 then ' ' || (i / 1480 + 1) else '' end,
       case when i % 7 = 3 then null else 'user' || i || '@example.test' end,
       (array['admin','member','member','member','guest'])[1 + i % 5]::user_role,
       timestamptz '2023-01-01 00:00:00+00' + i * interval '37 minutes'
from generate_series(0, :users - 1) i;

insert into projects (id, key, name, owner_id, archived)
select 'p' || i,
       (array['WEB','IOS','AND','API','BIL','SRCH','SYNC','DOCS','OPS','AUTH','DATA','MAIL'])[1 + i % 12]
         || case when i < 12 then '' else (i / 12 + 1)::text end,
       (array['Web app','iOS app','Android app','Public API','Billing','Search','Sync engine','Documentation',
              'Operations','Accounts','Data platform','Notifications'])[1 + i % 12]
         || case when i < 12 then '' else ' ' || (i / 12 + 1) end,
       case when i % 9 = 8 then null else 'u' || pg_temp.mix(i, 1, :users) end,
       i % 12 = 11
from generate_series(0, :projects - 1) i;

insert into labels (id, name, color)
select 'l' || (n - 1), name, color
from unnest(
  array['bug','feature','docs','performance','ux','infra','security','question','regression','flaky',
        'good first issue','needs design','blocked','customer','accessibility','i18n','tech debt','mobile','データ','à vérifier'],
  array['#d73a4a','#0e8a16','#0075ca','#b45309','#8250df','#57606a','#cf222e','#bf3989','#e16f24','#9a6700',
        '#1a7f37','#a475f9','#6e7781','#0969da','#116329','#3b82f6','#7d4e00','#0550ae', null, '#c2410c']
) with ordinality as t(name, color, n);

insert into issues (id, project_id, num, title, body, status, priority, estimate,
                    creator_id, assignee_id, meta, rev, created_at, updated_at)
select 'i' || lpad(i::text, 7, '0'),
       'p' || i % :projects,
       i / :projects + 1,
       pg_temp.pick(array['Export','Login page','Search','Settings menu','File upload','Sync','Comment editor','Invoice PDF',
                          'Mobile navigation','Webhook delivery','Password reset','Date picker','Notification badge',
                          'CSV import','Audit log','Dark mode','Keyboard shortcut','Bulk edit','API pagination',
                          'Session refresh','Avatar crop','Drag and drop','Rate limiter','Error page'], i, 11)
         || ' ' ||
       pg_temp.pick(array['crashes','hangs','is slow','loses changes','shows stale data','ignores the time zone',
                          'returns 500','jumps to the top','needs a confirmation','should remember the last choice',
                          'is not reachable by keyboard','counts twice','drops the last row','flickers',
                          'needs an empty state','truncates long names','fails without a message',
                          'uses 100% of a core','sends duplicates','should be undoable'], i, 17)
         || ' ' ||
       pg_temp.pick(array['when the project has no members','after reconnecting','on Safari','for guests',
                          'with more than 1,000 rows','on slow networks','after the last deploy','when offline',
                          'in right-to-left languages','during a long import','if two people edit at once',
                          'for snake_case keys','on the first visit','behind a proxy','when the clock is wrong',
                          'with emoji in the title','after a restart','on small screens'], i, 23),
       case when i % 6 = 5 then null else
         pg_temp.pick(array['Reported by two customers this week.','Seen on staging and in production.',
                            'I can reproduce this about one time in five.','This came up in the last review.',
                            'Found while testing the new release.','Support gets asked about this every day.'], i, 29)
         || E'\n\n' ||
         pg_temp.pick(array['Steps: open the project, change a field, then press back.',
                            'It starts to happen after the tab has been hidden for an hour.',
                            'The log only says "unexpected end of input".',
                            'The network panel shows the same request three times.',
                            'Nothing is lost on the server; only the page is wrong.',
                            'A hard reload makes it go away until the next edit.',
                            'It worked in the version before; bisecting points at the cache.'], i, 31)
         || ' ' ||
         pg_temp.pick(array['Expected: the change stays. Actual: it is gone after a second.',
                            'Expected: an error message. Actual: an empty panel.',
                            'We should at least say what went wrong.',
                            'A workaround is to close the other window first.',
                            'Screenshots are in the shared folder.',
                            'Happy to pair on this.'], i, 37)
         || repeat(' The same holds for archived projects, which nobody had tried before.', pg_temp.mix(i, 41, 4)::int)
       end,
       (array['open','open','open','in_progress','done','done','wontfix'])[1 + pg_temp.mix(i, 43, 7)]::issue_status,
       pg_temp.mix(i, 47, 5),
       case when i % 4 = 3 then null else (1 + pg_temp.mix(i, 53, 64)) / 4.0 end,
       'u' || pg_temp.mix(i, 59, :users),
       case when i % 3 = 2 then null else 'u' || pg_temp.mix(i, 61, :users) end,
       case when i % 5 = 4 then null
            else jsonb_build_object('source', pg_temp.pick(array['web','email','api','support'], i, 67),
                                    'votes', pg_temp.mix(i, 71, 40),
                                    'browser', jsonb_build_object('name', pg_temp.pick(array['Firefox','Chrome','Safari'], i, 73),
                                                                  'mobile', i % 2 = 0)) end,
       0,
       -- One year, in even steps, so that "newest first" has one answer.
       timestamptz '2024-01-01 00:00:00+00' + i * (interval '365 days' / :issues),
       timestamptz '2024-01-01 00:00:00+00' + i * (interval '365 days' / :issues)
         + pg_temp.mix(i, 79, 2592000) * interval '1 second'
from generate_series(0, :issues - 1) i;

insert into comments (id, issue_id, author_id, body, created_at)
select 'c' || lpad(i::text, 8, '0'),
       'i' || lpad(issue::text, 7, '0'),
       case when i % 11 = 10 then null else 'u' || pg_temp.mix(i, 89, :users) end,
       pg_temp.pick(array['I see this too.','Cannot reproduce on main.','Fixed on my branch, review welcome.',
                          'Is this still happening?','Same here, with the Firefox beta.','Moving this to the next cycle.',
                          'The root cause is a stale cache entry.','This is a duplicate of an older one, I think.',
                          'Raised the priority: a customer is blocked.','Let us first write a failing test.',
                          'Half of it is fixed; the mobile part is left.','Thanks for the clear report!'], i, 97)
         || case when i % 3 = 0 then '' else ' ' ||
       pg_temp.pick(array['I attached a trace.','See the thread in #support.','It needs a migration, so not today.',
                          'My guess: the retry does not carry the token.','The numbers from last week say the same.',
                          'Let me know if you need more data.','We could also just delete the feature.',
                          'It only fails when the list is empty.'], i, 101) end,
       timestamptz '2024-01-01 00:00:00+00' + issue * (interval '365 days' / :issues)
         + pg_temp.mix(i, 103, 2592000) * interval '1 second'
from (select i, pg_temp.mix(i, 83, :issues) as issue from generate_series(0, :comments - 1) i) as c;

insert into issue_labels (issue_id, label_id)
select 'i' || lpad(i::text, 7, '0'), 'l' || (pg_temp.mix(i, 107, 20) + k * 7) % 20
from generate_series(0, :issues - 1) i, generate_series(0, 2) k
where k < pg_temp.mix(i, 109, 4);

analyze;
