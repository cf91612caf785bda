import {useEffect, useState} from 'react';
import {useQuery} from '@rocicorp/zero/react';
import {ORDERS, queries} from '../../shared/queries.mjs';
import {Filters} from './Filters.jsx';
import {NewIssue} from './NewIssue.jsx';
import {Row} from './Row.jsx';
import {useRoute} from './route.mjs';

const STEP = 50;
const MOST = 500;

export function List() {
  const [route] = useRoute();
  const filter = {
    projectID: route.project,
    status: route.status,
    labelID: route.label,
    assigneeID: route.assignee,
    search: route.search,
    order: route.order in ORDERS ? route.order : 'created',
  };
  // Another filter is another list: it begins at its top.
  return (
    <main className="list" aria-label="Issues">
      <Header projectID={route.project} />
      <Filters />
      <Window key={JSON.stringify(filter)} filter={filter} open={route.issue} />
    </main>
  );
}

function Header({projectID}) {
  const [projects] = useQuery(queries.project.all(), {ttl: '10m'});
  const project = projects.find(p => p.id === projectID);
  const [writing, setWriting] = useState(false);
  return (
    <header>
      <h2>{project?.name ?? 'All issues'}</h2>
      <button className="primary" onClick={() => setWriting(true)}>
        New issue
      </button>
      {writing && <NewIssue projectID={projectID} projects={projects} onClose={() => setWriting(false)} />}
    </header>
  );
}

/** Some rows after a cursor; both can be moved. */
function Window({filter, open}) {
  const [cursors, setCursors] = useState([]);
  const [limit, setLimit] = useState(STEP);
  const after = cursors.at(-1);
  const [issues, {type, error}] = useQuery(queries.issue.list({...filter, after, limit}), {ttl: '1m'});
  const full = issues.length >= limit;

  function older() {
    const last = issues.at(-1);
    const columns = ORDERS[filter.order].map(([column]) => [column, last[column]]);
    setCursors([...cursors, {id: last.id, ...Object.fromEntries(columns)}]);
    setLimit(STEP);
  }
  function newer() {
    setCursors(cursors.slice(0, -1));
    setLimit(STEP);
  }
  useEffect(() => {
    document.querySelector('.rows')?.scrollTo(0, 0);
  }, [cursors]);

  return (
    <>
      <ol className="rows" aria-label="Issue list" aria-busy={type === 'unknown'} data-result={type}>
        {issues.map(issue => (
          <Row key={issue.id} issue={issue} open={issue.id === open} />
        ))}
        {issues.length === 0 && <Empty type={type} error={error} />}
      </ol>
      <footer className="pager">
        <span>
          {issues.length} shown{type === 'unknown' ? ', loading …' : ''}
          {cursors.length > 0 ? `, page ${cursors.length + 1}` : ''}
        </span>
        {cursors.length > 0 && <button onClick={newer}>‹ Previous page</button>}
        {full && limit < MOST && <button onClick={() => setLimit(limit + STEP)}>Load more</button>}
        {full && <button onClick={older}>Next page ›</button>}
      </footer>
    </>
  );
}

function Empty({type, error}) {
  if (type === 'error') return <li className="empty">The list could not be loaded: {error?.message}</li>;
  if (type === 'unknown') return <li className="empty">Loading …</li>;
  return <li className="empty">No issue matches.</li>;
}
