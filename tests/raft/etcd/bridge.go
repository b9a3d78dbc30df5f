// etcd's raft for struct bop_raft_engine. See engine_etcd.c, and bridge.h for what is passed.
//
// etcd's RawNode hands out a Ready, and wants entries and snapshots durable before the messages
// of that Ready are sent and before Advance is called. Our owner writes while it goes on. So each
// Ready is advanced at once, and what must wait for the disk waits here:
//
//   - A follower acknowledges no more than is durable.
//   - A leader hears no more from its followers than is durable here. As etcd counts the leader's
//     own log as durable from the start, a majority is then one of what is durable.
//   - What a lone voter commits counts once it is durable; so does what a follower is told.
//   - Changes of the configuration are applied, as etcd has it, when they are committed.
package main

/*
#cgo CFLAGS: -I${SRCDIR}
#include <stdlib.h>
#include "bridge.h"
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"
	"sync"
	"unsafe"

	"go.etcd.io/etcd/raft"
	pb "go.etcd.io/etcd/raft/raftpb"
)

const (
	messageBytesMax = 1 << 20
	inflightMax     = 256
	stranger        = math.MaxUint64 // A server that there is not.
)

// Payloads of any size, of which nothing but the size counts.
var zeros [messageBytesMax]byte

type storage struct {
	*raft.MemoryStorage
	initial pb.ConfState
}

func (s *storage) InitialState() (pb.HardState, pb.ConfState, error) {
	hard, _, err := s.MemoryStorage.InitialState()
	return hard, s.initial, err
}

type ack struct {
	peer, term, index uint64
}

type node struct {
	id         uint64
	raw        *raft.RawNode
	storage    *storage
	voters     map[uint64]bool
	learners   map[uint64]bool
	durable    uint64
	published  uint64
	installing uint64
	own        ack               // What we shall acknowledge when it is durable.
	installed  uint64            // A snapshot that our leader may not know to be here; 0: none.
	sending    map[uint64]int    // For how many ticks a snapshot has been on its way to a peer.
	theirs     map[uint64]uint64 // What they acknowledged beyond what is durable here.
	theirTerm  uint64
	extra      []pb.Message
	out        []C.struct_etcd_message
	outMemory  unsafe.Pointer
	outRoom    int
	failure    string
}

var (
	lock  sync.Mutex
	nodes = map[uint64]*node{}
	next  uint64
)

func find(handle C.uint64_t) *node {
	lock.Lock()
	defer lock.Unlock()
	return nodes[uint64(handle)]
}

// guard turns a panic of etcd's, its way of saying that an assumption does not hold, into a failure.
func (n *node) guard(result *C.int) {
	if problem := recover(); problem != nil {
		n.failure = fmt.Sprint(problem)
		*result = -1
	}
}

func membersOf(in *C.struct_etcd_members) pb.ConfState {
	var state pb.ConfState
	for i := 0; i < int(in.voter_count); i++ {
		state.Voters = append(state.Voters, uint64(in.voters[i]))
	}
	for i := 0; i < int(in.learner_count); i++ {
		state.Learners = append(state.Learners, uint64(in.learners[i]))
	}
	return state
}

func set(ids []uint64) map[uint64]bool {
	out := map[uint64]bool{}
	for _, id := range ids {
		out[id] = true
	}
	return out
}

func sorted(ids map[uint64]bool) []uint64 {
	out := make([]uint64, 0, len(ids))
	for id := range ids {
		out = append(out, id)
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out
}

// A change carries all members, as the context of one of etcd's that says nothing else.
func changeData(members pb.ConfState) []byte {
	context := binary.LittleEndian.AppendUint64(nil, uint64(len(members.Voters)))
	for _, id := range append(append([]uint64{}, members.Voters...), members.Learners...) {
		context = binary.LittleEndian.AppendUint64(context, id)
	}
	change := pb.ConfChange{Context: context}
	data, err := change.Marshal()
	if err != nil {
		panic(err)
	}
	return data
}

func changeMembers(data []byte) (voters, learners map[uint64]bool) {
	var change pb.ConfChange
	if err := change.Unmarshal(data); err != nil {
		panic(err)
	}
	count := int(binary.LittleEndian.Uint64(change.Context))
	var ids []uint64
	for at := 8; at < len(change.Context); at += 8 {
		ids = append(ids, binary.LittleEndian.Uint64(change.Context[at:]))
	}
	return set(ids[:count]), set(ids[count:])
}

func entriesOf(in *C.struct_etcd_entries, first uint64) []pb.Entry {
	if in == nil || in.count == 0 {
		return nil
	}
	raw := unsafe.Slice(in.entries, int(in.count))
	out := make([]pb.Entry, len(raw))
	changes := 0
	for i := range raw {
		entry := pb.Entry{Term: uint64(raw[i].term), Index: first + uint64(i)}
		if raw[i].change != 0 {
			members := (*C.struct_etcd_members)(unsafe.Add(unsafe.Pointer(in.changes),
				changes*int(unsafe.Sizeof(C.struct_etcd_members{}))))
			changes++
			entry.Type = pb.EntryConfChange
			entry.Data = changeData(membersOf(members))
		} else {
			size := int(raw[i].size)
			if size > len(zeros) {
				size = len(zeros)
			}
			entry.Data = zeros[:size]
		}
		out[i] = entry
	}
	return out
}

func say(text string, out *C.char) {
	buffer := unsafe.Slice((*byte)(unsafe.Pointer(out)), C.ETCD_ERROR_MAX)
	count := copy(buffer[:C.ETCD_ERROR_MAX-1], text)
	buffer[count] = 0
}

//export bop_etcd_create
func bop_etcd_create(start *C.struct_etcd_start, log *C.struct_etcd_entries, outHandle *C.uint64_t,
	outError *C.char) (result C.int) {
	n := &node{id: uint64(start.id), theirs: map[uint64]uint64{}, sending: map[uint64]int{}}
	defer func() {
		if result != 0 {
			say(n.failure, outError)
		}
	}()
	defer n.guard(&result)

	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	n.storage = &storage{MemoryStorage: raft.NewMemoryStorage(), initial: membersOf(&start.members)}
	base := uint64(start.base_index)
	if base > 0 {
		must(n.storage.ApplySnapshot(pb.Snapshot{Metadata: pb.SnapshotMetadata{
			Index: base, Term: uint64(start.base_term), ConfState: n.storage.initial}}))
	}
	entries := entriesOf(log, base+1)
	must(n.storage.Append(entries))
	if snapshot := uint64(start.snapshot_index); snapshot > base {
		_, err := n.storage.CreateSnapshot(snapshot, &n.storage.initial, nil)
		must(err)
	}
	commit := uint64(start.commit)
	must(n.storage.SetHardState(pb.HardState{Term: uint64(start.term), Vote: uint64(start.vote),
		Commit: commit}))
	raw, err := raft.NewRawNode(&raft.Config{
		ID:                        n.id,
		ElectionTick:              int(start.election_ticks),
		HeartbeatTick:             1,
		Storage:                   n.storage,
		Applied:                   commit,
		MaxSizePerMsg:             messageBytesMax,
		MaxCommittedSizePerReady:  math.MaxUint64,
		MaxInflightMsgs:           inflightMax,
		PreVote:                   true,
		CheckQuorum:               true,
		DisableProposalForwarding: true,
		Logger:                    logger{},
	})
	must(err)
	n.raw = raw
	n.voters = set(n.storage.initial.Voters)
	n.learners = set(n.storage.initial.Learners)
	n.durable = base + uint64(len(entries))
	n.published = commit
	lock.Lock()
	next++
	nodes[next] = n
	*outHandle = C.uint64_t(next)
	lock.Unlock()
	return 0
}

//export bop_etcd_destroy
func bop_etcd_destroy(handle C.uint64_t) {
	n := find(handle)
	C.free(n.outMemory)
	lock.Lock()
	delete(nodes, uint64(handle))
	lock.Unlock()
}

//export bop_etcd_failure
func bop_etcd_failure(handle C.uint64_t, out *C.char) {
	say(find(handle).failure, out)
}

// ---- What happens ----

// bop_etcd_time is a tick. Elections are begun by bop_etcd_campaign alone: etcd would choose
// their times from a source of chance that all nodes share and nobody can seed.
//
//export bop_etcd_time
func bop_etcd_time(handle C.uint64_t, installTicks C.uint32_t) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	if n.raw.BasicStatus().RaftState == raft.StateLeader {
		n.giveUpSnapshots(int(installTicks))
		n.raw.Tick()
	} else {
		n.raw.TickQuiesced()
	}
	return 0
}

//export bop_etcd_campaign
func bop_etcd_campaign(handle C.uint64_t) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	_ = n.raw.Campaign()
	return 0
}

//export bop_etcd_transfer
func bop_etcd_transfer(handle, peer C.uint64_t) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	n.raw.TransferLeader(uint64(peer))
	return 0
}

// bop_etcd_propose returns 1 if the proposal is dropped.
//
//export bop_etcd_propose
func bop_etcd_propose(handle C.uint64_t, entries *C.struct_etcd_entries) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	if n.raw.Step(pb.Message{Type: pb.MsgProp, From: n.id, Entries: entriesOf(entries, 0)}) != nil {
		return 1
	}
	return 0
}

//export bop_etcd_persisted
func bop_etcd_persisted(handle, index C.uint64_t) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	if uint64(index) > n.durable && n.installing == 0 {
		n.becomeDurable(uint64(index))
	}
	return 0
}

//export bop_etcd_installed
func bop_etcd_installed(handle C.uint64_t) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	n.installed = n.installing
	n.installing = 0
	n.becomeDurable(n.installed)
	return 0
}

//export bop_etcd_compact
func bop_etcd_compact(handle, index, trailing C.uint64_t) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	if _, err := n.storage.CreateSnapshot(uint64(index), nil, nil); err != nil {
		panic(err)
	}
	if index > trailing {
		if err := n.storage.Compact(uint64(index - trailing)); err != nil && err != raft.ErrCompacted {
			panic(err)
		}
	}
	return 0
}

// bop_etcd_lost says that what was on its way to a peer is lost.
//
//export bop_etcd_lost
func bop_etcd_lost(handle, peer C.uint64_t) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	if n.sendsSnapshot(uint64(peer)) {
		n.raw.ReportSnapshot(uint64(peer), raft.SnapshotFailure)
	} else {
		n.raw.ReportUnreachable(uint64(peer))
	}
	return 0
}

//export bop_etcd_receive
func bop_etcd_receive(handle C.uint64_t, in *C.struct_etcd_message,
	entries *C.struct_etcd_entries) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	message := pb.Message{
		Type: pb.MessageType(in._type), From: uint64(in.peer), To: n.id, Term: uint64(in.term),
		Index: uint64(in.index), LogTerm: uint64(in.log_term), Commit: uint64(in.commit),
		Reject: in.reject != 0, RejectHint: uint64(in.hint),
		Entries: entriesOf(entries, uint64(in.index)+1),
	}
	if in.transfer != 0 {
		message.Context = []byte("CampaignTransfer")
	}
	if message.Type == pb.MsgSnap {
		message.Snapshot.Metadata = pb.SnapshotMetadata{Index: message.Index, Term: message.LogTerm,
			ConfState: membersOf(&in.members)}
	}
	if message.Type == pb.MsgAppResp && !message.Reject {
		n.receiveAck(message)
		return 0
	}
	if message.Type == pb.MsgAppResp && n.lostSome(message) {
		n.beginAnew(message.From)
	}
	_ = n.raw.Step(message)
	if message.Type == pb.MsgApp && message.Index >= n.installed {
		n.installed = 0
	}
	n.tellInstalled(message)
	return 0
}

// etcd's leader sends nothing to whom it sent a snapshot until that is acknowledged, and the
// acknowledgement may be lost, or be owed to the leader before. So it is repeated until entries
// come. What is in a snapshot is committed: every leader has it.
func (n *node) tellInstalled(message pb.Message) {
	status := n.raw.BasicStatus()
	if message.Type == pb.MsgHeartbeat && n.installed > 0 && n.installing == 0 &&
		status.RaftState == raft.StateFollower && message.Term == status.Term {
		n.extra = append(n.extra, pb.Message{Type: pb.MsgAppResp, To: message.From,
			Term: status.Term, Index: n.installed})
	}
}

// Whether a follower rejects what it had acknowledged, or says that its log ends before that.
func (n *node) lostSome(message pb.Message) bool {
	status := n.raw.BasicStatus()
	if !message.Reject || message.Term != status.Term || status.RaftState != raft.StateLeader {
		return false
	}
	had := n.theirs[message.From]
	n.raw.WithProgress(func(id uint64, _ raft.ProgressType, progress progress) {
		if id == message.From && progress.Match > had {
			had = progress.Match
		}
	})
	return had > 0 && (message.Index <= had || message.RejectHint < had)
}

// etcd never takes back what it counts as matched, unless a member leaves and comes back. While it
// is away a stranger who says nothing is in its place, so no majority gets smaller.
func (n *node) beginAnew(peer uint64) {
	step := func(kind pb.ConfChangeType, id uint64) {
		n.raw.ApplyConfChange(pb.ConfChangeV2{
			Changes: []pb.ConfChangeSingle{{Type: kind, NodeID: id}}})
	}
	kind := pb.ConfChangeAddLearnerNode
	if n.voters[peer] {
		kind = pb.ConfChangeAddNode
	} else if !n.learners[peer] {
		return
	}
	delete(n.theirs, peer)
	step(kind, stranger)
	step(pb.ConfChangeRemoveNode, peer)
	step(kind, peer)
	step(pb.ConfChangeRemoveNode, stranger)
}

// After so many ticks a snapshot is taken for lost.
func (n *node) giveUpSnapshots(ticks int) {
	late := map[uint64]bool{}
	n.raw.WithProgress(func(id uint64, _ raft.ProgressType, progress progress) {
		if progress.PendingSnapshot == 0 {
			delete(n.sending, id)
		} else if n.sending[id]++; n.sending[id] >= ticks {
			delete(n.sending, id)
			late[id] = true
		}
	})
	for _, id := range sorted(late) {
		n.raw.ReportSnapshot(id, raft.SnapshotFailure)
	}
}

func (n *node) sendsSnapshot(peer uint64) (sends bool) {
	n.raw.WithProgress(func(id uint64, _ raft.ProgressType, progress progress) {
		if id == peer {
			sends = progress.PendingSnapshot != 0
		}
	})
	return sends
}

// ---- What waits for the disk ----

func (n *node) receiveAck(message pb.Message) {
	term := n.raw.BasicStatus().Term
	if n.theirTerm != term {
		n.theirTerm = term
		n.theirs = map[uint64]uint64{}
	}
	if message.Term == term && message.Index > n.durable {
		if message.Index > n.theirs[message.From] {
			n.theirs[message.From] = message.Index
		}
		message.Index = n.durable
	}
	_ = n.raw.Step(message)
	// A peer that took an older snapshot than the last one it was sent would wait for ever.
	if message.Term == term && message.Index > 0 && n.sendsSnapshot(message.From) {
		n.raw.ReportSnapshot(message.From, raft.SnapshotFailure)
	}
}

func (n *node) becomeDurable(index uint64) {
	n.durable = index
	status := n.raw.BasicStatus()
	if n.own.index > 0 && n.own.term == status.Term && status.RaftState == raft.StateFollower {
		message := pb.Message{Type: pb.MsgAppResp, To: n.own.peer, Term: n.own.term,
			Index: min(n.own.index, index)}
		n.extra = append(n.extra, message)
	}
	if n.own.index <= index || n.own.term != status.Term {
		n.own = ack{}
	}
	if n.theirTerm != status.Term || status.RaftState != raft.StateLeader {
		n.theirs = map[uint64]uint64{}
		return
	}
	waiting := map[uint64]bool{}
	for peer := range n.theirs {
		waiting[peer] = true
	}
	for _, peer := range sorted(waiting) {
		acked := n.theirs[peer]
		if acked <= index {
			delete(n.theirs, peer)
		}
		_ = n.raw.Step(pb.Message{Type: pb.MsgAppResp, From: peer, To: n.id, Term: status.Term,
			Index: min(acked, index)})
	}
}

func min(a, b uint64) uint64 {
	if a < b {
		return a
	}
	return b
}

// ---- What comes of it ----

func (n *node) applyChange(data []byte) {
	voters, learners := changeMembers(data)
	apply := func(kind pb.ConfChangeType, id uint64) {
		n.raw.ApplyConfChange(pb.ConfChangeV2{
			Changes: []pb.ConfChangeSingle{{Type: kind, NodeID: id}}})
	}
	for _, id := range sorted(voters) {
		if !n.voters[id] {
			apply(pb.ConfChangeAddNode, id)
		}
	}
	for _, id := range sorted(learners) {
		if !n.learners[id] {
			apply(pb.ConfChangeAddLearnerNode, id)
		}
	}
	for _, known := range []map[uint64]bool{n.voters, n.learners} {
		for _, id := range sorted(known) {
			if !voters[id] && !learners[id] {
				apply(pb.ConfChangeRemoveNode, id)
				delete(n.theirs, id) // It may come back with nothing.
			}
		}
	}
	n.voters, n.learners = voters, learners
}

// A leader that lost its vote goes on leading with etcd; ours do not.
func (n *node) abdicate() {
	status := n.raw.BasicStatus()
	if status.RaftState != raft.StateLeader || n.voters[n.id] {
		return
	}
	for _, id := range sorted(n.voters) {
		_ = n.raw.Step(pb.Message{Type: pb.MsgAppResp, From: id, To: n.id, Term: status.Term + 1})
		return
	}
}

func (n *node) takeSnapshot(snapshot pb.Snapshot, out *C.struct_etcd_ready) {
	if err := n.storage.ApplySnapshot(snapshot); err != nil {
		panic(err)
	}
	n.installing = snapshot.Metadata.Index
	n.durable = n.published
	n.own = ack{}
	n.voters = set(snapshot.Metadata.ConfState.Voters)
	n.learners = set(snapshot.Metadata.ConfState.Learners)
	out.install_index = C.uint64_t(snapshot.Metadata.Index)
	out.install_term = C.uint64_t(snapshot.Metadata.Term)
}

func (n *node) takeEntries(entries []pb.Entry, out *C.struct_etcd_ready) {
	if out.append_count > 0 {
		panic("entries twice in one step")
	}
	if err := n.storage.Append(entries); err != nil {
		panic(err)
	}
	first, last := entries[0], entries[len(entries)-1]
	n.durable = min(n.durable, first.Index-1)
	out.append_count = C.uint32_t(len(entries))
	out.append_index = C.uint64_t(first.Index)
	out.append_term_first = C.uint64_t(first.Term)
	out.append_term_last = C.uint64_t(last.Term)
}

func (n *node) publish(committed []pb.Entry) int {
	if n.installing == 0 {
		if commit := min(n.raw.BasicStatus().Commit, n.durable); commit > n.published {
			n.published = commit
		}
	}
	count := 0
	for _, entry := range committed {
		if entry.Index > n.published {
			break
		}
		if entry.Type == pb.EntryConfChange {
			n.applyChange(entry.Data)
		}
		count++
	}
	return count
}

func (n *node) putMessage(message pb.Message) {
	if message.To == stranger {
		return
	}
	if message.Type == pb.MsgAppResp && !message.Reject && message.Index > n.durable {
		if n.own.term != message.Term || n.own.peer != message.To || n.own.index < message.Index {
			n.own = ack{peer: message.To, term: message.Term, index: message.Index}
		}
		return
	}
	out := C.struct_etcd_message{
		_type:    C.uint32_t(message.Type),
		peer:     C.uint64_t(message.To),
		term:     C.uint64_t(message.Term),
		index:    C.uint64_t(message.Index),
		log_term: C.uint64_t(message.LogTerm),
		commit:   C.uint64_t(min(message.Commit, n.published)),
		hint:     C.uint64_t(message.RejectHint),
		count:    C.uint32_t(len(message.Entries)),
	}
	if message.Reject {
		out.reject = 1
	}
	if string(message.Context) == "CampaignTransfer" {
		out.transfer = 1
	}
	n.out = append(n.out, out)
}

// One Ready. Returns whether there was anything in it.
func (n *node) turn(out *C.struct_etcd_ready) bool {
	if !n.raw.HasReady() {
		return false
	}
	ready := n.raw.Ready()
	news := ready.SoftState != nil || !raft.IsEmptyHardState(ready.HardState) ||
		len(ready.Messages) > 0 || len(ready.Entries) > 0
	if !raft.IsEmptyHardState(ready.HardState) {
		if err := n.storage.SetHardState(ready.HardState); err != nil {
			panic(err)
		}
	}
	if !raft.IsEmptySnap(ready.Snapshot) {
		n.takeSnapshot(ready.Snapshot, out)
		news = true
	}
	if len(ready.Entries) > 0 {
		n.takeEntries(ready.Entries, out)
	}
	count := n.publish(ready.CommittedEntries)
	ready.CommittedEntries = ready.CommittedEntries[:count]
	for _, message := range ready.Messages {
		n.putMessage(message)
	}
	n.raw.Advance(ready)
	n.abdicate()
	return news || count > 0
}

func (n *node) fill(out *C.struct_etcd_ready) {
	status := n.raw.BasicStatus()
	last, err := n.storage.LastIndex()
	if err != nil {
		panic(err)
	}
	out.term = C.uint64_t(status.Term)
	out.vote = C.uint64_t(status.Vote)
	out.leader = C.uint64_t(status.Lead)
	out.transferee = C.uint64_t(status.LeadTransferee)
	out.state = C.uint32_t(status.RaftState)
	out.commit = C.uint64_t(n.published)
	out.waiting = C.uint64_t(status.Commit - n.published)
	out.durable = C.uint64_t(n.durable)
	out.last_index = C.uint64_t(last)
	for i, id := range sorted(n.voters) {
		out.members.voters[i] = C.uint64_t(id)
		out.members.voter_count++
	}
	for i, id := range sorted(n.learners) {
		out.members.learners[i] = C.uint64_t(id)
		out.members.learner_count++
	}
	if status.RaftState != raft.StateLeader {
		return
	}
	n.raw.WithProgress(func(id uint64, _ raft.ProgressType, progress progress) {
		out.progress[out.progress_count] = C.struct_etcd_progress{id: C.uint64_t(id),
			match: C.uint64_t(progress.Match)}
		out.progress_count++
	})
}

// The messages go into memory of C's, which may be looked at until the next call.
func (n *node) hand(out *C.struct_etcd_ready) {
	if len(n.out) > n.outRoom {
		n.outRoom = 2 * len(n.out)
		C.free(n.outMemory)
		n.outMemory = C.calloc(C.size_t(n.outRoom), C.size_t(unsafe.Sizeof(n.out[0])))
	}
	if len(n.out) > 0 {
		copy(unsafe.Slice((*C.struct_etcd_message)(n.outMemory), n.outRoom), n.out)
	}
	out.messages = (*C.struct_etcd_message)(n.outMemory)
	out.message_count = C.uint32_t(len(n.out))
}

//export bop_etcd_collect
func bop_etcd_collect(handle C.uint64_t, out *C.struct_etcd_ready) (result C.int) {
	n := find(handle)
	defer n.guard(&result)
	*out = C.struct_etcd_ready{}
	n.out = n.out[:0]
	for n.turn(out) {
	}
	for _, message := range n.extra {
		n.putMessage(message)
	}
	n.extra = n.extra[:0]
	n.fill(out)
	n.hand(out)
	return 0
}

func main() {}
