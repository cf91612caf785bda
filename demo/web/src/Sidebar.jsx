import {useState} from 'react';
import {useQuery} from '@rocicorp/zero/react';
import {queries} from '../../shared/queries.mjs';
import {Avatar} from './bits.jsx';
import {Connection} from './Connection.jsx';
import {useMe} from './me.mjs';
import {hrefOf, useRoute} from './route.mjs';
import {UserPicker} from './UserPicker.jsx';

export function Sidebar() {
  const [route] = useRoute();
  const [me, become] = useMe();
  const [projects] = useQuery(queries.project.all(), {ttl: '10m'});
  const [user] = useQuery(queries.user.one({id: me}), {ttl: '10m'});
  const [archived, setArchived] = useState(false);
  const shown = projects.filter(p => archived || !p.archived || p.id === route.project);
  const mine = route.assignee === me && !route.project;

  return (
    <nav className="sidebar" aria-label="Projects">
      <h1>
        <span className="logo">K</span> Kelvin issues
      </h1>
      <Connection />
      <ul>
        <li>
          <a href={hrefOf({project: '', assignee: '', issue: ''})} aria-current={!route.project && !mine ? 'page' : undefined}>
            All issues
          </a>
        </li>
        <li>
          <a href={hrefOf({project: '', assignee: me, issue: ''})} aria-current={mine ? 'page' : undefined}>
            Assigned to me
          </a>
        </li>
      </ul>
      <h2>Projects</h2>
      <ul className="projects">
        {shown.map(p => (
          <li key={p.id}>
            <a href={hrefOf({project: p.id, issue: ''})} aria-current={route.project === p.id ? 'page' : undefined}>
              <code>{p.key}</code>
              <span>{p.name}</span>
            </a>
          </li>
        ))}
      </ul>
      {projects.some(p => p.archived) && (
        <label className="check">
          <input type="checkbox" checked={archived} onChange={e => setArchived(e.target.checked)} /> show archived
        </label>
      )}
      <footer>
        <UserPicker label="Act as" value={me} onPick={become}>
          <Avatar user={user ?? {id: me, name: '?'}} size={26} />
          <span>
            {user?.name ?? me}
            <small>{user?.role ?? ''}</small>
          </span>
        </UserPicker>
      </footer>
    </nav>
  );
}
