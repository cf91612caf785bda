import {useState} from 'react';
import {mutators} from '../../shared/mutators.mjs';
import {Avatar, Time} from './bits.jsx';
import {newID, useChange} from './change.mjs';

export function Comments({issue, loading}) {
  const change = useChange();
  const [draft, setDraft] = useState('');

  async function send(event) {
    event.preventDefault();
    if (!draft.trim()) return;
    const added = await change(mutators.comment.add({id: newID('c'), issueID: issue.id, body: draft}));
    if (added) setDraft('');
  }
  return (
    <section className="comments" aria-label="Comments">
      <h3>
        {issue.comments.length} {issue.comments.length === 1 ? 'comment' : 'comments'}
        {loading ? ' …' : ''}
      </h3>
      <ol>
        {issue.comments.map(c => (
          <li key={c.id}>
            <Avatar user={c.author} size={26} />
            <div>
              <p className="byline">
                <b>{c.author?.name ?? 'Somebody'}</b> <Time at={c.createdAt} />
              </p>
              <p className="text">{c.body}</p>
            </div>
          </li>
        ))}
      </ol>
      <form onSubmit={send}>
        <textarea
          aria-label="Write a comment"
          placeholder="Write a comment"
          rows={3}
          value={draft}
          onChange={e => setDraft(e.target.value)}
          onKeyDown={e => {
            if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) send(e);
            if (e.key === 'Escape') e.stopPropagation();
          }}
        />
        <button className="primary" disabled={!draft.trim()}>
          Comment
        </button>
      </form>
    </section>
  );
}
