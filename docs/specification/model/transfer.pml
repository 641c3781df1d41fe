/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * One transfer along a path of ledgers: reserve on each, ONE decision in a witnessed decision log, post or void on its
 * proof; and what happens when the decider is lost for ever. README.md says what is modelled, and what the options are
 * for. spin tries every order in which things can happen: nothing here says how likely anything is.
 *
 * How it is put:
 *
 * - Messages. What has become durable may be told to anyone, at any time, any number of times, or never. So there are no
 *   channels: a step reads the durable state of others, and a message that is lost, late, repeated or overtaken is a step
 *   that is not taken, or late, or again. (What is told stays true. So a step that rests on two messages may read both
 *   when it is taken.)
 * - Crashes. An entry is first appended, in memory, then flushed. A crash loses what was not flushed; there may be any
 *   number of them. Nobody else reads what is not durable.
 * - Deaths. A dead node does nothing any more. What it had sent may arrive all the same, until it is silent.
 * - Clocks. Time only permits something: it is a step that may be taken whenever it likes.
 * - A reservation moves value from the left to the right of a ledger. The left of the first ledger is the payer, the
 *   right of the last one the payee. All other sides are accounts of partners, so the right of ledger i and the left of
 *   ledger i + 1 are mirrors of each other.
 */

/* ------------------------------------------------------------------------------------------------------- options */

/* ROUND: not a transfer but a clearing round, in which each ledger moves value from its left neighbour to its right one,
 * in a ring. Nobody waits for a promise to make its own, no member is concerned, and there is no early abort. */
#ifndef LEDGERS
#define LEDGERS 3 /* on the path: 2 to 4 */
#endif
#ifndef DECIDER
#define DECIDER LEDGERS /* the place of the deciding ledger on the path; LEDGERS: it is not on the path */
#endif
#ifndef WITNESSES
#define WITNESSES 3 /* 2, 3 or 4 */
#endif
#ifndef QUORUM
#define QUORUM 2
#endif
#ifndef SUCCESSORS
#define SUCCESSORS 1 /* 0, 1 or 2 */
#endif
#ifndef OTHERS
#define OTHERS 0 /* leaves of other deals in the decider's decision log: 0 or 1 */
#endif
#ifndef LYING_WITNESSES
#define LYING_WITNESSES 0 /* so many go on cosigning after their seal, and cosign whatever a lying decider shows */
#endif
#ifndef LYING_LEDGER
#define LYING_LEDGER NONE /* its place: it promises without reserving; the payer's asks for the abort whenever it likes */
#endif
#ifndef DEATHS
#define DEATHS 0 /* beside the decider, so many of the path's ledgers and witnesses may die at most */
#endif

/* --------------------------------------------------------------------------------------------------------- names */

/* A side of a reservation; FREE: nothing was ever reserved. */
#define FREE 0
#define RESERVED 1
#define VOIDED 2
#define POSTED 3

/* An entry that is appended; a resolution has the number of the sides that it makes. */
#define NOTHING 0
#define RESERVE 1
#define GIVE_UP 4

/* A leaf of a decision log. A log has two leaves at most: the first in bits 0 and 1, the second in bits 2 and 3. */
#define OTHER 1
#define ABORT 2
#define COMMIT 3
#define with_leaf(leaves, leaf) ((leaves) == 0 -> (leaf) : ((leaves) | (leaf) << 2))
#define holds(leaves, outcome) (((leaves) & 3) == (outcome) || ((leaves) >> 2) == (outcome))
#define is_decided(leaves) (holds(leaves, ABORT) || holds(leaves, COMMIT))
#define is_start(start, leaves) ((start) == 0 || (start) == (leaves) || (start) == ((leaves) & 3))

#define NONE 255

/* The life of a node. A doomed one may die at any moment. */
#define WELL 0
#define DOOMED 1
#define DEAD 2
#define SILENT 3
#define is_alive(node) (life[node] < DEAD)
#define is_heard(node) (life[node] < SILENT)

/* Nodes: the ledgers of the path, then those of the other logs, then the witnesses. */
#define LOGS (1 + SUCCESSORS)
#define log_node(l) ((l) == 0 -> DECIDER : LEDGERS + (l))
#ifdef LEDGERS_ARE_WITNESSES
#define witness_node(w) (w)
#else
#define witness_node(w) (LEDGERS + LOGS + (w))
#endif
#define NODES (LEDGERS + LOGS + WITNESSES)

/* The last log of the chain has a quorum of its own, which lives and never seals: what is durable there comes to count. */
#if SUCCESSORS == 0
#define WITNESSED 1
#else
#define WITNESSED SUCCESSORS
#endif
#define at(l, w) ((l) * WITNESSES + (w))
#define lies(w) ((w) < LYING_WITNESSES)
#define is_honest(i) ((i) != LYING_LEDGER)

/* --------------------------------------------------------------------------------------------------------- state */

byte life[NODES];

/* Of each ledger of the path. */
byte left[LEDGERS], right[LEDGERS]; /* the sides of the reservation */
byte doubtful[LEDGERS];             /* the side that stands in for one of them once the board has given the deal up */
bool is_left_lost[LEDGERS];         /* on a hop: it stands in for the left one, as that partner is lost */
byte appended[LEDGERS];             /* an entry that is not durable yet */
byte refusal[LEDGERS];              /* 1: it has refused once, and may yet promise; 2: it will never promise */
bool is_abort_asked;                /* by the payer's ledger, before the earliest abort */
#ifdef FAIR
bool is_calm;                       /* nobody crashes any more */
#else
#define is_calm false
#endif
bool is_late;                       /* by the decider's clock the earliest abort has passed */

/* Of each decision log: the decider's, then those of the successors. */
byte log[LOGS];
byte leaf[LOGS];                    /* the next leaf, not durable yet */
byte heritage[LOGS];                /* what a successor has found in the sealed leaves: an outcome, 0, or NONE yet */
byte heritage_appended[LOGS];       /* the same, not durable yet */

/* Of each witness, by log. */
byte kept[WITNESSED * WITNESSES];   /* the leaves under what it has cosigned; kept before the cosignature leaves */
byte seal[WITNESSED * WITNESSES];   /* the leaves that its seal shows, or NONE */
byte sealing[WITNESSED * WITNESSES]; /* 1: the seal is recorded, not durable yet */
byte sealers[LOGS];                 /* the boards of the first so many witnesses seal this log; the others never do */

/* ---------------------------------------------------------------------------------------- what may be known to others */

#if LEDGERS == 2
#define EVERY(what) (what(0) && what(1))
#define ANY(what) (what(0) || what(1))
#elif LEDGERS == 3
#define EVERY(what) (what(0) && what(1) && what(2))
#define ANY(what) (what(0) || what(1) || what(2))
#else
#define EVERY(what) (what(0) && what(1) && what(2) && what(3))
#define ANY(what) (what(0) || what(1) || what(2) || what(3))
#endif
#if WITNESSES == 2
#define SUM(what, l, x) (what(l, 0, x) + what(l, 1, x))
#elif WITNESSES == 3
#define SUM(what, l, x) (what(l, 0, x) + what(l, 1, x) + what(l, 2, x))
#else
#define SUM(what, l, x) (what(l, 0, x) + what(l, 1, x) + what(l, 2, x) + what(l, 3, x))
#endif

#ifdef ROUND
#define is_payers(i) false
#define is_payees(i) false
#else
#define is_payers(i) ((i) == 0)
#define is_payees(i) ((i) == LEDGERS - 1)
#endif

/* Its agent has signed the statement: the promise. */
#ifdef PROMISE_BEFORE_DURABLE
#define has_promised(i) (right[i] != FREE || appended[i] == RESERVE) /* DEFECT */
#else
#define has_promised(i) (right[i] != FREE || !is_honest(i))
#endif
#define tells_promise(i) (has_promised(i) && is_heard(i))
#define has_refused(i) (refusal[i] > 0)
#define is_pending(i) (left[i] == RESERVED || right[i] == RESERVED || doubtful[i] == RESERVED)
#define asks(i) ((is_pending(i) || !is_honest(i)) && is_heard(i))

/* The deal's policy names witnesses 0 to 2, or all. Another policy of the same decider names 3 in the place of 2. */
#ifdef NEWER_POLICY
#define is_named(w, policy) ((w) != 3 - (policy))
#else
#define is_named(w, policy) true
#endif

/* A decision counts when a quorum has cosigned its leaf. (The protocol asks for one and the same checkpoint. Less counts
 * there than here; so what never happens here never happens there.) */
#ifdef LYING_DECIDER
#define has_cosigned(l, w, outcome) (is_named(w, 0) && (lies(w) || holds(kept[at(l, w)], outcome)))
#else
#define has_cosigned(l, w, outcome) (is_named(w, 0) && holds(kept[at(l, w)], outcome))
#endif
#define has_counted(l, outcome) (SUM(has_cosigned, l, outcome) >= QUORUM)
#define shows_cosigned(l, w, outcome) (has_cosigned(l, w, outcome) && is_heard(witness_node(w)))
#define counts_by_quorum(l, outcome) (SUM(shows_cosigned, l, outcome) >= QUORUM)
#if SUCCESSORS == 0
#define counts(l, outcome) counts_by_quorum(l, outcome)
#else
#define counts(l, outcome) ((l) == SUCCESSORS -> holds(log[l], outcome) : counts_by_quorum(l, outcome))
#endif

#define shows_seal(l, w, x) (seal[at(l, w)] != NONE && is_named(w, 0) && is_heard(witness_node(w)))
#define is_sealed(l) (SUM(shows_seal, l, 0) >= QUORUM)
/* Whether all logs before this one are sealed, so that it may be used. */
#ifdef NO_SEALS
#define is_in_force(l) true /* DEFECT */
#elif SUCCESSORS == 2 && !defined(SECOND_AT_ONCE)
#define is_in_force(l) ((l) == 0 || (is_sealed(0) && ((l) == 1 || is_sealed(1))))
#else
#define is_in_force(l) ((l) == 0 || is_sealed(0))
#endif

/* ---------------------------------------------------------------------------------------------------- properties */

/* Named, because spin reports the text of the assertion that fails. */
hidden byte agreement, single_resolution, hop_neutrality, full_reservation, one_decision, one_history, no_contradiction;
hidden byte member_left_alone, settled, committed, k, swapped, has_posted, has_voided;

#define is_hop(i) (!is_payers(i) && !is_payees(i))
/* The doubtful account stands in for the member; on a hop, for the partner that is lost. */
#define is_left_doubtful(i) (doubtful[i] != FREE && (is_payers(i) || is_left_lost[i]))
#define is_right_doubtful(i) (doubtful[i] != FREE && !is_payers(i) && !is_left_lost[i])
#define standing_left(i) (is_left_doubtful(i) -> doubtful[i] : left[i])
#define standing_right(i) (is_right_doubtful(i) -> doubtful[i] : right[i])

/* No ledger posts what another voids. (What is between a ledger and its own member is no matter of the others.) */
inline check_agreement()
{
    has_posted = false;
    has_voided = false;
    for (k : 0 .. LEDGERS - 1) {
        has_posted = has_posted || (!is_payers(k) && standing_left(k) == POSTED) ||
            (!is_payees(k) && standing_right(k) == POSTED);
        has_voided = has_voided || (!is_payers(k) && standing_left(k) == VOIDED) ||
            (!is_payees(k) && standing_right(k) == VOIDED)
    }
    agreement = !(has_posted && has_voided);
    assert(agreement)
}

/* What comes in on the left goes out on the right, and nothing else: a hop neither gains nor loses. */
inline check_neutrality(i)
{
    hop_neutrality = standing_left(i) == standing_right(i);
    assert(hop_neutrality)
}

/* A member who was freed is not charged, nor paid, by what is learnt later. */
inline check_member(i)
{
    member_left_alone = doubtful[i] == FREE || ((!is_payers(i) || left[i] == VOIDED) &&
        (!is_payees(i) || right[i] == VOIDED));
    assert(member_left_alone)
}

#define contradicts(l, m, one, two) (has_counted(l, one) && holds(log[m], two))

/* No decision that counts is contradicted: by another that counts, or by what a successor records. */
inline check_contradiction()
{
    no_contradiction = !(has_counted(0, COMMIT) && has_counted(0, ABORT));
#if SUCCESSORS > 0
    no_contradiction = no_contradiction && !contradicts(0, 1, COMMIT, ABORT) && !contradicts(0, 1, ABORT, COMMIT);
#endif
#if SUCCESSORS > 1
    no_contradiction = no_contradiction && !contradicts(0, 2, COMMIT, ABORT) && !contradicts(0, 2, ABORT, COMMIT);
    no_contradiction = no_contradiction && !contradicts(1, 2, COMMIT, ABORT) && !contradicts(1, 2, ABORT, COMMIT);
#endif
    assert(no_contradiction)
}

/* --------------------------------------------------------------------------------------------- crashes and deaths */

inline lose_ledger(i)
{
    if :: appended[i] == GIVE_UP -> is_left_lost[i] = false :: else fi;
    appended[i] = NOTHING;
    if :: i == DECIDER -> leaf[0] = NOTHING :: else fi;
#ifdef LEDGERS_ARE_WITNESSES
    sealing[at(0, i)] = 0
#endif
}
#ifdef LEDGERS_ARE_WITNESSES
#define has_unflushed(i) (appended[i] != NOTHING || (i == DECIDER && leaf[0] != NOTHING) || sealing[at(0, i)])
#else
#define has_unflushed(i) (appended[i] != NOTHING || (i == DECIDER && leaf[0] != NOTHING))
#endif

inline lose_log(l)
{
    leaf[l] = NOTHING;
    heritage_appended[l] = NONE
}

inline lose_witness(w)
{
    for (k : 0 .. WITNESSED - 1) {
#ifdef SEAL_BEFORE_DURABLE
        if :: sealing[at(k, w)] == 1 -> sealing[at(k, w)] = 2 :: else fi
#else
        sealing[at(k, w)] = 0
#endif
    }
    k = 0
}

/* ----------------------------------------------------------------------------------------- a ledger of the path */

#define has_reserved(i) (left[i] != FREE || !is_honest(i))

inline resolve(i)
{
    if
    :: doubtful[i] == FREE ->
        single_resolution = left[i] == RESERVED && right[i] == RESERVED;
        left[i] = appended[i];
        right[i] = appended[i]
    :: else -> /* a late proof meets the doubtful account, and the other side as before */
        single_resolution = doubtful[i] == RESERVED;
        doubtful[i] = appended[i];
#ifdef LATE_PROOF_MEETS_MEMBER
        left[i] = appended[i]; /* DEFECT */
        right[i] = appended[i]
#else
        if :: is_left_doubtful(i) -> right[i] = appended[i] :: else -> left[i] = appended[i] fi
#endif
    fi;
    assert(single_resolution);
    full_reservation = appended[i] == VOIDED || EVERY(has_reserved);
    assert(full_reservation)
}

inline flush_entry(i)
{
    if
    :: appended[i] == RESERVE ->
        single_resolution = left[i] == FREE && right[i] == FREE;
        assert(single_resolution);
        left[i] = RESERVED;
        right[i] = RESERVED
    :: appended[i] == GIVE_UP ->
        doubtful[i] = RESERVED;
#ifdef HOP_FREES_PARTNER
        if :: is_right_doubtful(i) != is_hop(i) -> right[i] = VOIDED :: else -> left[i] = VOIDED fi /* DEFECT */
#else
        if :: is_right_doubtful(i) -> right[i] = VOIDED :: else -> left[i] = VOIDED fi
#endif
    :: else -> resolve(i)
    fi;
    appended[i] = NOTHING;
    check_neutrality(i);
    check_member(i);
    check_agreement()
}

#define may_append(i) (is_honest(i) && is_alive(i) && appended[i] == NOTHING)
#ifdef FORGETS_RESOLVED
#define may_reserve(i) (may_append(i) && left[i] != RESERVED && refusal[i] < 2) /* DEFECT: a prepare that comes again */
#else
#define may_reserve(i) (may_append(i) && left[i] == FREE && refusal[i] < 2)
#endif
/* Where a ledger decides itself, its one log orders its promise and its decision. */
#define may_promise(i) (i != DECIDER || !(is_late || is_decided(log[0]) || leaf[0] > OTHER))
#ifdef ROUND
#define is_asked_to_promise(i) true
#else
#define is_asked_to_promise(i) (i == 0 || tells_promise(i - 1))
#endif

#define may_give_up(i) (may_append(i) && left[i] == RESERVED && right[i] == RESERVED)

#define is_shown(l, outcome) (is_heard(log_node(l)) && is_in_force(l) && counts(l, outcome))
/* A commit is believed with the promises of all, which nobody can make up. The decider shows them from its record of the
 * decision; a successor asks for them again. The decider's own promise is its decision. */
#define is_shown_promise(i) (i == DECIDER || tells_promise(i))
#if defined(PROMISES_UNSEEN)
#define is_believed(l, outcome) true /* DEFECT */
#elif defined(LYING_DECIDER)
#define is_believed(l, outcome) ((outcome) == ABORT || EVERY(is_shown_promise))
#else
#define is_believed(l, outcome) ((outcome) == ABORT || (l) == 0 || EVERY(is_shown_promise))
#endif
#ifdef NEWER_POLICY /* DEFECT: the payer's ledger takes a quorum of either policy */
#define is_shown_by_newer_policy(i, l, outcome) ((i) == 0 && (l) == 0 && SUM(has_cosigned_newer, l, outcome) >= QUORUM)
#define has_cosigned_newer(l, w, outcome) (holds(kept[at(l, w)], outcome) && is_named(w, 1))
#else
#define is_shown_by_newer_policy(i, l, outcome) false
#endif
#define may_resolve(i, l, outcome) (may_append(i) && is_pending(i) && is_believed(l, outcome) && \
    (is_shown(l, outcome) || is_shown_by_newer_policy(i, l, outcome)))
#define RESOLVE(i, l) \
    :: d_step { may_resolve(i, l, COMMIT) -> appended[i] = POSTED } \
    :: d_step { may_resolve(i, l, ABORT) -> appended[i] = VOIDED }

proctype ledger(byte i)
{
end:
    do
    /* The payer signs `send`. The others record `forward` or `promise` once the ledger before them has promised. */
    :: d_step { may_reserve(i) && may_promise(i) && is_asked_to_promise(i) -> appended[i] = RESERVE }
    :: d_step { i > 0 && may_reserve(i) && is_asked_to_promise(i) && refusal[i] == 0 -> refusal[i] = 1 }
    :: d_step { i > 0 && may_reserve(i) && is_asked_to_promise(i) -> refusal[i] = 2 }
    /* Told that a ledger after it refuses, the payer's node asks for the abort at once. */
    :: d_step { is_payers(i) && is_alive(0) && !is_abort_asked && (!is_honest(0) || (is_pending(0) && ANY(has_refused))) ->
        is_abort_asked = true }
    RESOLVE(i, 0)
#if SUCCESSORS > 0
    RESOLVE(i, 1)
#endif
#if SUCCESSORS > 1
    RESOLVE(i, 2)
#endif
#ifdef GIVING_UP
    /* The board may give up whenever it likes, so also where nothing is lost; on a hop, either partner. */
    :: d_step { may_give_up(i) -> appended[i] = GIVE_UP }
    :: d_step { may_give_up(i) && is_hop(i) -> appended[i] = GIVE_UP; is_left_lost[i] = true }
#endif
#ifdef OWN_CLOCK
    :: d_step { may_append(i) && is_pending(i) -> appended[i] = VOIDED } /* DEFECT */
#endif
    :: d_step { is_alive(i) && appended[i] != NOTHING -> flush_entry(i) }
    :: d_step { is_alive(i) && has_unflushed(i) && !is_calm -> lose_ledger(i) }
    :: d_step { life[i] == DOOMED -> life[i] = DEAD; lose_ledger(i) }
    :: d_step { life[i] == DEAD -> life[i] = SILENT }
    od
}

/* --------------------------------------------------------------------------------------------------- the decider */

#if DECIDER < LEDGERS
#define has_own_promise (left[DECIDER] != FREE || appended[DECIDER] == RESERVE)
#define refuses_itself (refusal[DECIDER] == 2 && !has_own_promise)
#else
#define has_own_promise false
#define refuses_itself false
#endif
/* The payer's ledger may ask before the earliest abort, until the payee's has promised and decides itself. */
#ifdef NO_EARLY_ABORT
#define is_abort_early false
#else
#define is_abort_early (is_abort_asked && is_heard(0) && !(is_payees(DECIDER) && has_own_promise))
#endif
#ifdef ABORT_AFTER_COMMIT
#define may_abort (is_alive(DECIDER) && leaf[0] == NOTHING && !holds(log[0], ABORT)) /* DEFECT */
#else
#define may_abort (is_alive(DECIDER) && leaf[0] == NOTHING && !is_decided(log[0]))
#endif

inline flush_leaf(l)
{
    log[l] = with_leaf(log[l], leaf[l]);
    leaf[l] = NOTHING;
#ifndef ABORT_AFTER_COMMIT /* what follows from that is looked for */
    one_decision = !(holds(log[l], COMMIT) && holds(log[l], ABORT));
    assert(one_decision);
#endif
    check_contradiction()
}

proctype decider()
{
end:
    do
    :: d_step { is_alive(DECIDER) && leaf[0] == NOTHING && !is_decided(log[0]) && EVERY(tells_promise) ->
        leaf[0] = COMMIT }
    /* From the earliest abort on anybody who waits may ask for it. What the decider will not promise itself, it aborts. */
    :: d_step { may_abort && ((is_late && ANY(asks)) || is_abort_early || refuses_itself) -> leaf[0] = ABORT }
#if OTHERS > 0
    :: d_step { is_alive(DECIDER) && leaf[0] == NOTHING && !holds(log[0], OTHER) -> leaf[0] = OTHER }
#endif
    :: d_step { is_alive(DECIDER) && leaf[0] != NOTHING ->
        flush_leaf(0);
        for (k : 0 .. WITNESSES - 1) {
            one_history = is_start(kept[at(0, k)], log[0]);
            assert(one_history)
        }
        k = 0 }
#if DECIDER == LEDGERS
    :: d_step { is_alive(DECIDER) && leaf[0] != NOTHING && !is_calm -> lose_log(0) }
    :: d_step { life[DECIDER] == DOOMED -> life[DECIDER] = DEAD; lose_log(0) }
    :: d_step { life[DECIDER] == DEAD -> life[DECIDER] = SILENT }
#endif
    od
}

/* -------------------------------------------------------------------------------------------------- the witnesses */

#ifdef DECISION_BEFORE_DURABLE
#define shown(l) (leaf[l] == NOTHING -> log[l] : with_leaf(log[l], leaf[l])) /* DEFECT */
#else
#define shown(l) log[l]
#endif
#ifdef WITNESS_BLIND
#define has_two_outcomes(leaves) false /* DEFECT */
#else
#define has_two_outcomes(leaves) (holds(leaves, COMMIT) && holds(leaves, ABORT))
#endif
#ifdef SEAL_BEFORE_DURABLE
#define has_forgotten_seal(l, w) (sealing[at(l, w)] == 2) /* DEFECT: it was shown, and then lost in a crash */
#else
#define has_forgotten_seal(l, w) false
#endif
#define may_cosign(l, w) (is_alive(witness_node(w)) && (lies(w) || has_forgotten_seal(l, w) || \
    (seal[at(l, w)] == NONE && !sealing[at(l, w)])))
/* It cosigns what extends all that it has cosigned of this log, and holds one outcome of a deal at most. */
#define COSIGN(l, w, leaves) \
    :: d_step { may_cosign(l, w) && is_heard(log_node(l)) && (leaves) != kept[at(l, w)] && \
            is_start(kept[at(l, w)], leaves) && !has_two_outcomes(leaves) -> \
        kept[at(l, w)] = (leaves); check_contradiction(); sort_witnesses() }
/* From the record of its seal on it cosigns nothing of that log; the seal is shown once that record is durable. */
#define SEAL(l, w) \
    :: d_step { is_alive(witness_node(w)) && w < sealers[l] && seal[at(l, w)] == NONE && !sealing[at(l, w)] -> \
        sealing[at(l, w)] = 1; SHOW_SEAL_EARLY(l, w) sort_witnesses() } \
    :: d_step { is_alive(witness_node(w)) && sealing[at(l, w)] == 1 -> \
        sealing[at(l, w)] = 0; seal[at(l, w)] = kept[at(l, w)]; sort_witnesses() }
#ifdef SEAL_BEFORE_DURABLE
#define SHOW_SEAL_EARLY(l, w) seal[at(l, w)] = kept[at(l, w)];
#else
#define SHOW_SEAL_EARLY(l, w)
#endif

/* Witnesses that differ in nothing else are kept in the order of what they know: six states of three witnesses are one. */
#if defined(LEDGERS_ARE_WITNESSES) || defined(NEWER_POLICY) || defined(UNSORTED)
#define is_like_next(w) false
#else
#define is_like_next(w) (life[witness_node(w)] == life[witness_node((w) + 1)] && lies(w) == lies((w) + 1) && \
    (w) + 1 != sealers[0] && (w) + 1 != sealers[WITNESSED - 1])
#endif
#define knowledge_of(l, w) ((seal[at(l, w)] * 3 + sealing[at(l, w)]) * 16 + kept[at(l, w)])
#define knowledge(w) (knowledge_of(0, w) * 10000 + knowledge_of(WITNESSED - 1, w))

inline swap(one, other)
{
    swapped = one;
    one = other;
    other = swapped
}

inline sort_witnesses()
{
    k = 0;
    do
    :: k + 1 < WITNESSES && is_like_next(k) && knowledge(k) > knowledge(k + 1) ->
        swap(kept[at(0, k)], kept[at(0, k + 1)]);
        swap(seal[at(0, k)], seal[at(0, k + 1)]);
        swap(sealing[at(0, k)], sealing[at(0, k + 1)]);
#if WITNESSED > 1
        swap(kept[at(1, k)], kept[at(1, k + 1)]);
        swap(seal[at(1, k)], seal[at(1, k + 1)]);
        swap(sealing[at(1, k)], sealing[at(1, k + 1)]);
#endif
        k = 0
    :: k + 1 < WITNESSES && !(is_like_next(k) && knowledge(k) > knowledge(k + 1)) -> k++
    :: else -> break
    od;
    k = 0
}

proctype witness(byte w)
{
end:
    do
#ifdef LYING_DECIDER
    /* Under its own signature it shows each witness what it likes. */
    COSIGN(0, w, COMMIT)
    COSIGN(0, w, ABORT)
#ifdef STARTS_LATE
    /* DEFECT: a witness that knows nothing of the log begins behind a leaf that it is not shown. */
    :: d_step { may_cosign(0, w) && kept[at(0, w)] == 0 ->
        kept[at(0, w)] = with_leaf(COMMIT, ABORT); check_contradiction(); sort_witnesses() }
#endif
#if OTHERS > 0
    COSIGN(0, w, OTHER)
    COSIGN(0, w, with_leaf(OTHER, COMMIT))
    COSIGN(0, w, with_leaf(OTHER, ABORT))
    COSIGN(0, w, with_leaf(COMMIT, OTHER))
    COSIGN(0, w, with_leaf(ABORT, OTHER))
#endif
#else
    COSIGN(0, w, shown(0))
#if OTHERS > 0
    COSIGN(0, w, shown(0) & 3)
#endif
#endif
#if SUCCESSORS > 0
    SEAL(0, w)
#endif
#if SUCCESSORS > 1
    COSIGN(1, w, shown(1))
    SEAL(1, w)
#endif
#ifndef LEDGERS_ARE_WITNESSES
#if SUCCESSORS > 0
    :: d_step { is_alive(witness_node(w)) && (sealing[at(0, w)] || sealing[at(WITNESSED - 1, w)]) && !is_calm ->
        lose_witness(w); sort_witnesses() }
#endif
    :: d_step { life[witness_node(w)] == DOOMED ->
        life[witness_node(w)] = DEAD; lose_witness(w); sort_witnesses() }
    :: d_step { life[witness_node(w)] == DEAD ->
        life[witness_node(w)] = SILENT; sort_witnesses() }
#endif
    od
}

/* ------------------------------------------------------------------------------------------------- the successors */

#define size(leaves) ((leaves) == 0 -> 0 : ((leaves) < 4 -> 1 : 2))
#ifdef SMALLEST_SEAL
#define is_within(l, v, w) (shows_seal(l, v, 0) && size(seal[at(l, v)]) >= size(seal[at(l, w)])) /* DEFECT */
#elif defined(FORKED_SEALS)
#define is_within(l, v, w) (shows_seal(l, v, 0) && size(seal[at(l, v)]) <= size(seal[at(l, w)])) /* DEFECT */
#else
#define is_within(l, v, w) (shows_seal(l, v, 0) && is_start(seal[at(l, v)], seal[at(l, w)]))
#endif
#ifdef NO_SEALS
#define is_longest(l, w) true /* DEFECT: it asks one witness what it has seen */
#define sealed(l, w) kept[at(l, w)]
#else
/* A quorum shows seals, and what all of them show is the start of what this one shows: it is the longest, of one history. */
#define is_longest(l, w) (shows_seal(l, w, 0) && SUM(is_within, l, w) >= QUORUM)
#define sealed(l, w) seal[at(l, w)]
#endif
#define found(leaves) (holds(leaves, COMMIT) -> COMMIT : (holds(leaves, ABORT) -> ABORT : 0))
#define may_succeed(l) (is_alive(log_node(l)) && heritage[l] == NONE && heritage_appended[l] == NONE)

#define INHERIT(w) \
    :: d_step { l == 1 && may_succeed(1) && is_longest(0, w) -> heritage_appended[1] = found(sealed(0, w)) }
#ifdef SECOND_AT_ONCE
/* DEFECT: the second successor does as the first, with seals of its own choice. */
#define INHERIT_SECOND(w, v) \
    :: d_step { l == 2 && may_succeed(2) && is_longest(0, w) -> heritage_appended[2] = found(sealed(0, w)) }
#else
/* The second successor needs a quorum of seals of the first one's log too; and what that had decided comes first. */
#define INHERIT_SECOND(w, v) \
    :: d_step { l == 2 && may_succeed(2) && is_longest(0, w) && is_longest(1, v) -> \
        heritage_appended[2] = (is_decided(sealed(1, v)) -> found(sealed(1, v)) : found(sealed(0, w))) }
#endif

proctype successor(byte l)
{
end:
    do
    INHERIT(0)
    INHERIT(1)
#if WITNESSES > 2
    INHERIT(2)
#endif
#if WITNESSES > 3
    INHERIT(3)
#endif
#if SUCCESSORS > 1
    INHERIT_SECOND(0, 0)
    INHERIT_SECOND(0, 1)
    INHERIT_SECOND(0, 2)
    INHERIT_SECOND(1, 0)
    INHERIT_SECOND(1, 1)
    INHERIT_SECOND(1, 2)
    INHERIT_SECOND(2, 0)
    INHERIT_SECOND(2, 1)
    INHERIT_SECOND(2, 2)
#endif
    :: d_step { is_alive(log_node(l)) && heritage_appended[l] != NONE ->
        heritage[l] = heritage_appended[l];
        heritage_appended[l] = NONE }
    /* Asked by somebody who waits, it decides: what it found in the sealed leaves, else abort. */
    :: d_step { is_alive(log_node(l)) && heritage[l] != NONE && leaf[l] == NOTHING && log[l] == 0 && ANY(asks) ->
        leaf[l] = (heritage[l] == 0 -> ABORT : heritage[l]) }
    :: d_step { is_alive(log_node(l)) && leaf[l] != NOTHING -> flush_leaf(l) }
    :: d_step { is_alive(log_node(l)) && (leaf[l] != NOTHING || heritage_appended[l] != NONE) && !is_calm -> lose_log(l) }
    :: d_step { life[log_node(l)] == DOOMED -> life[log_node(l)] = DEAD; lose_log(l) }
    :: d_step { life[log_node(l)] == DEAD -> life[log_node(l)] = SILENT }
    od
}

/* --------------------------------------------------------------------------------------------------- time, and the end */

#ifndef NEVER_LATE
proctype clock()
{
    is_late = true
}
#endif

#define serves(l, w, x) (is_alive(witness_node(w)) && w >= sealers[l] && is_named(w, 0))
#define may_seal(l, w, x) (is_alive(witness_node(w)) && w < sealers[l] && is_named(w, 0))
#define can_decide(l) (is_alive(log_node(l)) && (((l) == SUCCESSORS && (l) > 0) || SUM(serves, l, 0) >= QUORUM))
#define can_be_sealed(l) (SUM(may_seal, l, 0) >= QUORUM)
#if SUCCESSORS == 0
#define has_living_quorum can_decide(0)
#elif SUCCESSORS == 1
#define has_living_quorum (can_decide(0) || (can_be_sealed(0) && can_decide(1)))
#else
#define has_living_quorum \
    (can_decide(0) || (can_be_sealed(0) && (can_decide(1) || (can_be_sealed(1) && can_decide(2)))))
#endif
/* A successor commits with the promises of all: it needs them all alive, but for the decider's. */
#define can_show_promise(i) (i == DECIDER || is_alive(i))
#define is_settled(i) (!is_alive(i) || !is_pending(i))
#define is_member_settled(i) (!is_alive(i) || !((is_payers(i) && left[i] == RESERVED) || (is_payees(i) && right[i] == RESERVED)))

#define is_whole_deal_settled \
    (!has_living_quorum || !(can_decide(0) || EVERY(can_show_promise)) || EVERY(is_settled))
#define is_posted(i) (standing_left(i) == POSTED || !is_honest(i))
#define is_voided(i) (standing_left(i) == VOIDED || left[i] == FREE)

#ifdef FAIR
proctype peace()
{
    is_calm = true;
    do :: is_calm od /* runs have no end, so that fairness can be asked of them */
}

/* Never that again and again something is pending: a run of which this holds is one that spin reports. */
never {
more:
    do
    :: !is_whole_deal_settled -> goto accept_pending
    :: true
    od;
accept_pending:
    do :: true -> goto more od
}
#else
/* When everybody has done what there was to do, nothing is pending: if a decider, or its successor, and a quorum live. As
 * everything that is not a crash happens a few times at most, this is all that can become of a run without end, too. */
proctype judge()
{
    timeout ->
    atomic {
#ifndef LYING_DECIDER
        settled = is_whole_deal_settled;
        assert(settled);
#endif
#ifdef GIVING_UP
        settled = EVERY(is_member_settled);
        assert(settled);
#endif
#ifdef NEVER_LATE
        committed = ANY(has_refused) || sealers[0] >= QUORUM || EVERY(is_posted);
        assert(committed);
#endif
        /* What becomes of a deal, for those who ask whether anything does. */
        if :: EVERY(is_posted) && log[0] == COMMIT && log[LOGS - 1] != ABORT -> printf("end: committed\n") :: else fi;
        if :: EVERY(is_voided) && log[0] == ABORT -> printf("end: aborted\n") :: else fi;
        if :: EVERY(is_voided) && is_abort_asked && !is_late -> printf("end: aborted early\n") :: else fi;
        if :: EVERY(is_posted) && doubtful[0] == POSTED -> printf("end: committed after it was given up\n") :: else fi;
        if :: life[DECIDER] == SILENT && !EVERY(is_posted) && ANY(is_posted) -> printf("end: committed in part, and nobody is left to ask\n")
        :: else fi;
#if SUCCESSORS > 0
        if :: EVERY(is_posted) && log[LOGS - 1] == COMMIT -> printf("end: committed by both logs\n") :: else fi;
        if :: EVERY(is_voided) && log[LOGS - 1] == ABORT && log[0] == 0 -> printf("end: aborted by the successor\n")
        :: else fi;
        if :: EVERY(is_voided) && log[LOGS - 1] == ABORT && log[0] == COMMIT ->
            printf("end: aborted by the successor, as the commit never counted\n")
        :: else fi
#endif
    }
}
#endif

init {
    byte n, w;
    atomic {
        for (n : 0 .. LOGS - 1) {
            heritage[n] = NONE;
            heritage_appended[n] = NONE;
            if
#ifdef SEALERS
            :: n < SUCCESSORS -> sealers[n] = SEALERS
#else
            :: n < SUCCESSORS -> select(w : 0 .. WITNESSES); sealers[n] = w
#endif
            :: else
            fi;
#ifndef IMMORTAL
            if
            :: n < SUCCESSORS || n == 0 -> life[log_node(n)] = DOOMED
            :: true
            fi
#endif
        }
        for (n : 0 .. WITNESSED * WITNESSES - 1) { seal[n] = NONE }
        n = 0;
        do
        :: n < DEATHS ->
            select(w : 0 .. NODES - 1);
            if :: w < LEDGERS || w >= LEDGERS + LOGS -> life[w] = DOOMED :: else fi;
            n++
        :: else -> break
        od;
        for (n : 0 .. LEDGERS - 1) { run ledger(n) }
#ifdef LYING_DECIDER
        life[DECIDER] = WELL;
#else
        run decider();
#endif
        for (n : 0 .. WITNESSES - 1) { run witness(n) }
        for (n : 1 .. LOGS - 1) { run successor(n) }
#ifndef NEVER_LATE
        run clock();
#endif
#ifdef FAIR
        run peace();
#else
        run judge();
#endif
        n = 0;
        w = 0
    }
}
