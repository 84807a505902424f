package accept

import (
	"sync"
	"time"
)

const (
	// refusalEvery is how long a refusal that was logged is only counted.
	refusalEvery = time.Minute
	// maxRefusals bounds the peers that are told apart in that time. An
	// attacker may have more addresses than we have memory.
	maxRefusals = 512
)

// otherPeers stands for the peers beyond maxRefusals.
const otherPeers = "other peers"

type refusalKey struct{ peer, reason string }

type refusal struct {
	since time.Time
	more  int // refused and not logged since
}

// refusals keeps the log from growing as fast as somebody connects: a peer and
// a reason are logged at once the first time, and after that once a minute with
// a count. The zero value is ready; safe for concurrent use.
type refusals struct {
	mu     sync.Mutex
	seen   map[refusalKey]*refusal
	forgot time.Time // when forget last looked at all of them
}

// note counts a refusal. It returns whether to log it now, with the number of
// those that were not logged before it.
func (r *refusals) note(peer, reason string, now time.Time) (log bool, more int, who string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = make(map[refusalKey]*refusal)
	}
	k := refusalKey{peer, reason}
	e := r.seen[k]
	if e == nil && len(r.seen) >= maxRefusals {
		r.forget(now)
		if len(r.seen) >= maxRefusals {
			k.peer = otherPeers
			e = r.seen[k]
		}
	}
	if e == nil {
		r.seen[k] = &refusal{since: now}
		return true, 0, k.peer
	}
	if now.Sub(e.since) < refusalEvery {
		e.more++
		return false, 0, k.peer
	}
	more, e.more, e.since = e.more, 0, now
	return true, more, k.peer
}

// forget makes room by the peers that were not logged for a while. What was
// counted of them goes to the other peers, or it would never be told.
func (r *refusals) forget(now time.Time) {
	if now.Sub(r.forgot) < refusalEvery {
		return // under attack not all of them for each connection
	}
	r.forgot = now
	for k, e := range r.seen {
		if k.peer == otherPeers || now.Sub(e.since) < refusalEvery {
			continue
		}
		delete(r.seen, k)
		if e.more == 0 {
			continue
		}
		k.peer = otherPeers
		if o := r.seen[k]; o != nil {
			o.more += e.more
		} else {
			r.seen[k] = e
		}
	}
}
