import {useState} from 'react';
import {useQuery} from '@rocicorp/zero/react';
import {queries} from '../../shared/queries.mjs';
import {Avatar} from './bits.jsx';
import {Picker} from './Picker.jsx';

/** People by name; the server searches, so it works for any number of them. */
export function UserPicker({label, value, onPick, extra = [], children}) {
  const [text, setText] = useState('');
  const [users] = useQuery(queries.user.search({text}), {ttl: '1m'});
  const matching = extra.filter(o => o.text.toLowerCase().includes(text.toLowerCase()));
  const options = users.map(user => ({
    id: user.id,
    text: user.name,
    node: (
      <>
        <Avatar user={user} size={20} /> {user.name} {user.role !== 'member' && <small>{user.role}</small>}
      </>
    ),
  }));
  return (
    <Picker label={label} value={value} options={[...matching, ...options]} onPick={onPick} onSearch={setText}>
      {children}
    </Picker>
  );
}
