import {useEffect, useState} from 'react';
import {useQuery} from '@rocicorp/zero/react';
import {queries} from '../../shared/queries.mjs';
import {STATUSES} from '../../shared/schema.mjs';
import {Label, STATUS_NAMES, StatusIcon} from './bits.jsx';
import {Picker} from './Picker.jsx';
import {useRoute} from './route.mjs';
import {UserPicker} from './UserPicker.jsx';

const ANY = {id: '', text: 'Any'};
const ORDER_NAMES = {created: 'Newest first', updated: 'Recently updated', priority: 'Most urgent'};
const TYPING_MS = 150;

export function Filters() {
  const [route, go] = useRoute();
  const [labels] = useQuery(queries.label.all(), {ttl: '10m'});
  const [assignee] = useQuery(queries.user.one({id: route.assignee ?? ''}), {enabled: !!route.assignee, ttl: '1m'});
  const label = labels.find(l => l.id === route.label);
  const filtered = route.status || route.label || route.assignee || route.search;

  return (
    <div className="filters" role="search">
      <SearchBox value={route.search ?? ''} onChange={search => go({search}, {replace: true})} />
      <Picker
        label="Status"
        value={route.status ?? ''}
        onPick={status => go({status})}
        options={[
          ANY,
          ...STATUSES.map(s => ({
            id: s,
            text: STATUS_NAMES[s],
            node: (
              <>
                <StatusIcon status={s} /> {STATUS_NAMES[s]}
              </>
            ),
          })),
        ]}
      >
        {route.status ? (
          <>
            <StatusIcon status={route.status} /> {STATUS_NAMES[route.status]}
          </>
        ) : (
          'Status'
        )}
      </Picker>
      <Picker
        label="Label"
        value={route.label ?? ''}
        onPick={id => go({label: id})}
        options={[ANY, ...labels.map(l => ({id: l.id, text: l.name, node: <Label label={l} />}))]}
      >
        {label ? <Label label={label} /> : 'Label'}
      </Picker>
      <UserPicker
        label="Assignee"
        value={route.assignee ?? ''}
        onPick={id => go({assignee: id})}
        extra={[ANY, {id: 'none', text: 'Nobody'}]}
      >
        {route.assignee === 'none' ? 'Nobody' : (assignee?.name ?? 'Assignee')}
      </UserPicker>
      {filtered && (
        <button className="plain" onClick={() => go({status: '', label: '', assignee: '', search: ''})}>
          Clear
        </button>
      )}
      <select aria-label="Order" value={route.order ?? 'created'} onChange={e => go({order: e.target.value})}>
        {Object.entries(ORDER_NAMES).map(([id, name]) => (
          <option key={id} value={id}>
            {name}
          </option>
        ))}
      </select>
    </div>
  );
}

function SearchBox({value, onChange}) {
  const [text, setText] = useState(value);
  const [shown, setShown] = useState(value);
  // Changed from elsewhere: back button, "Clear". Not in an effect: a timer of the old word could be faster.
  if (shown !== value) {
    setShown(value);
    setText(value);
  }
  useEffect(() => {
    if (text === value) return;
    const timer = setTimeout(() => onChange(text), TYPING_MS);
    return () => clearTimeout(timer);
  });
  return <input type="search" placeholder="Search titles and texts" aria-label="Search" value={text} onChange={e => setText(e.target.value)} />;
}
