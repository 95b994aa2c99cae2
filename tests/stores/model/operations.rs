use std::{ops::Range, time::Duration};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::select, strategy::Union};
use tower_bearer_session::{
    OnFull,
    store::{NewSession, SessionLimit},
};

use crate::stores::limit;

/// One call of a store, or time.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Create {
        of: Session,
        new: NewSession,
        limit: Option<SessionLimit>,
    },
    Check(Session),
    Refresh(Session, Duration),
    Update(Session, Change),
    /// So many times another token, each in place of the one before, with this grace.
    Replace(Session, usize, Duration),
    /// A change that named a new token, once more: the last one of all, or one of those before.
    Repeat(usize),
    Delete(Session),
    /// Of this user; the token to keep.
    DeleteAll(usize, Option<u128>),
    List(usize),
    GetUser(usize),
    PutUser {
        user: usize,
        value: Vec<u8>,
        ttl: Duration,
        mode: Mode,
    },
    Advance(Duration),
}

/// A change of a session, whose conditions and tokens depend on the session.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) ttl: Option<Duration>,
    pub(super) metadata: Option<Bytes>,
    pub(super) authenticated: bool,
    /// A token that the session has never had, and the grace of its predecessor.
    pub(super) new_token: Option<Duration>,
    pub(super) end_others: bool,
    pub(super) if_token: Condition,
    pub(super) if_version: Condition,
    pub(super) if_metadata: Condition,
}

/// A condition that may hold for a session or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    None,
    Holds,
    Fails,
}

/// A user and the number of a token.
pub(super) type Session = (usize, u128);

#[derive(Clone, Debug)]
pub(super) enum Mode {
    Replace,
    IfNone,
    /// If it is this value, which it may be by chance.
    IfThis(Vec<u8>),
    /// If it is what it is at the moment, which always holds.
    IfCurrent,
}

pub(super) const USERS: usize = 3;
pub(super) const TOKENS: u128 = 6;

/// Sequences of operations with these ttls; with steps of time of so many milliseconds, if any.
pub(super) fn operations(
    ttls: &[Duration],
    steps: Option<Range<u64>>,
) -> impl Strategy<Value = Vec<Operation>> + use<> {
    let user = || 0..USERS;
    let of = || (user(), 0..TOKENS);
    let ttl = || select(ttls.to_vec());
    let bytes = || vec(0..4_u8, 0..3);
    let policy = select(vec![
        OnFull::EvictOldest,
        OnFull::EvictLeastRecentlyRefreshed,
        OnFull::Reject,
    ]);
    let limit = (1..5_u32, policy).prop_map(|(max, on_full)| limit(max, on_full).unwrap());
    let metadata = |len: Range<usize>| vec(any::<u8>(), len).prop_map(Bytes::from);
    let new = (ttl(), option::of(ttl()), option::of(metadata(1..40))).prop_map(
        |(ttl, max_lifetime, metadata)| {
            let mut new = NewSession::new(ttl);
            new.max_lifetime = max_lifetime;
            new.metadata = metadata;
            new
        },
    );
    let condition = || {
        prop_oneof![
            4 => Just(Condition::None),
            4 => Just(Condition::Holds),
            1 => Just(Condition::Fails),
        ]
    };
    let conditions = (condition(), condition(), condition());
    let change = (
        option::of(ttl()),
        option::of(metadata(0..40)),
        any::<bool>(),
        option::of(prop_oneof![Just(Duration::ZERO), ttl()]),
        prop::bool::weighted(0.25),
        conditions,
    )
        .prop_map(
            |(ttl, metadata, authenticated, new_token, end_others, conditions)| {
                let (if_token, if_version, if_metadata) = conditions;
                Change {
                    ttl,
                    metadata,
                    authenticated,
                    new_token,
                    end_others,
                    if_token,
                    if_version,
                    if_metadata,
                }
            },
        );
    let mode = prop_oneof![
        Just(Mode::Replace),
        Just(Mode::IfNone),
        bytes().prop_map(Mode::IfThis),
        Just(Mode::IfCurrent),
    ];

    let mut all = vec![
        (
            8,
            (of(), new, option::of(limit))
                .prop_map(|(of, new, limit)| Operation::Create { of, new, limit })
                .boxed(),
        ),
        (4, of().prop_map(Operation::Check).boxed()),
        (
            4,
            (of(), ttl())
                .prop_map(|(of, ttl)| Operation::Refresh(of, ttl))
                .boxed(),
        ),
        (
            6,
            (of(), change)
                .prop_map(|(of, change)| Operation::Update(of, change))
                .boxed(),
        ),
        (
            2,
            (of(), 1..30_usize, prop_oneof![Just(Duration::ZERO), ttl()])
                .prop_map(|(of, times, grace)| Operation::Replace(of, times, grace))
                .boxed(),
        ),
        (6, (0..3_usize).prop_map(Operation::Repeat).boxed()),
        (2, of().prop_map(Operation::Delete).boxed()),
        (
            1,
            (user(), option::of(0..TOKENS))
                .prop_map(|(user, except)| Operation::DeleteAll(user, except))
                .boxed(),
        ),
        (2, user().prop_map(Operation::List).boxed()),
        (1, user().prop_map(Operation::GetUser).boxed()),
        (
            4,
            (user(), bytes(), ttl(), mode)
                .prop_map(|(user, value, ttl, mode)| Operation::PutUser {
                    user,
                    value,
                    ttl,
                    mode,
                })
                .boxed(),
        ),
    ];
    if let Some(steps) = steps {
        let step = steps.prop_map(|millis| Operation::Advance(Duration::from_millis(millis)));
        all.push((8, step.boxed()));
    }
    vec(Union::new_weighted(all), 1..60)
}
