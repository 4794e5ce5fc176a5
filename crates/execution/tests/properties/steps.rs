//! What can happen to a run, and how often it does.

use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Signal(u8),
    Cancel,
    StartTask,
    Complete {
        commands: Vec<Ask>,
        sticky: bool,
        force: bool,
        inline: bool,
    },
    FailTask,
    StartActivity(u8),
    CompleteActivity(u8),
    FailActivity(u8, bool),
    CancelActivity(u8),
    Heartbeat(u8),
    CompleteById(u8),
    Pass(u32),
    StaleTask,
    LeaveSticky,
    Terminate,
    /// Another execution answers the nth message, or does not take it.
    Answer(u8, bool),
    /// The nth child closes.
    CloseChild(u8),
    Operate(Operation),
    Update(u8),
    Crash,
}

/// What an operator asks for.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    PauseActivity(u8, u8),
    UnpauseActivity(u8, bool),
    ResetActivity(u8, bool, bool),
    ActivityOptions(u8, u32),
    Pause(u8),
    Unpause,
    Priority(i32),
    Attach(u8),
}

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Activity { id: u8, attempts: i32, close: u32, beat: u32, eager: bool },
    CancelActivity(u8),
    Timer(u8, u32),
    CancelTimer(u8),
    Marker,
    Upsert,
    Memo,
    BadTimer,
    Child(u8, i32),
    SignalOther(u8),
    CancelOther(u8),
    Finish(u8),
    Say(u8, Word),
}

/// What a worker says of an update.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    Accept,
    Reject,
    Respond,
    AcceptAndRespond,
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => (0u8..4, 0i32..4, 0u32..20, 0u32..4, any::<bool>()).prop_map(
            |(id, attempts, close, beat, eager)| Ask::Activity { id, attempts, close, beat, eager }
        ),
        2 => (0u8..4).prop_map(Ask::CancelActivity),
        3 => (0u8..4, 0u32..10).prop_map(|(id, s)| Ask::Timer(id, s)),
        2 => (0u8..4).prop_map(Ask::CancelTimer),
        1 => Just(Ask::Marker),
        1 => Just(Ask::Upsert),
        1 => Just(Ask::Memo),
        1 => Just(Ask::BadTimer),
        3 => (0u8..3, 0i32..4).prop_map(|(id, policy)| Ask::Child(id, policy)),
        1 => (0u8..3).prop_map(Ask::SignalOther),
        1 => (0u8..3).prop_map(Ask::CancelOther),
        1 => (0u8..5).prop_map(Ask::Finish),
        6 => (0u8..6, prop_oneof![
            3 => Just(Word::Accept),
            3 => Just(Word::Reject),
            3 => Just(Word::Respond),
            3 => Just(Word::AcceptAndRespond),
        ]).prop_map(|(id, word)| Ask::Say(id, word)),
    ]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6).prop_map(Step::Signal),
        5 => (0u8..8).prop_map(Step::Update),
        1 => Just(Step::Crash),
        1 => Just(Step::Cancel),
        8 => Just(Step::StartTask),
        8 => (prop::collection::vec(ask(), 0..4), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(commands, sticky, force, inline)| Step::Complete {
                commands, sticky, force, inline
            }),
        2 => Just(Step::FailTask),
        4 => (0u8..4).prop_map(Step::StartActivity),
        2 => (0u8..4).prop_map(Step::CompleteActivity),
        2 => (0u8..4, any::<bool>()).prop_map(|(n, last)| Step::FailActivity(n, last)),
        2 => (0u8..4).prop_map(Step::CancelActivity),
        2 => (0u8..4).prop_map(Step::Heartbeat),
        1 => (0u8..4).prop_map(Step::CompleteById),
        5 => (0u32..15_000).prop_map(Step::Pass),
        1 => Just(Step::StaleTask),
        1 => Just(Step::LeaveSticky),
        4 => (0u8..4, any::<bool>()).prop_map(|(n, taken)| Step::Answer(n, taken)),
        2 => (0u8..4).prop_map(Step::CloseChild),
        // The sum of the weights in there.
        12 => operation().prop_map(Step::Operate),
        1 => (0u8..20).prop_filter_map("rarely", |n| (n == 0).then_some(Step::Terminate)),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        2 => (0u8..5, 0u8..2).prop_map(|(n, r)| Operation::PauseActivity(n, r)),
        2 => (0u8..5, any::<bool>()).prop_map(|(n, again)| Operation::UnpauseActivity(n, again)),
        1 => (0u8..5, any::<bool>(), any::<bool>())
            .prop_map(|(n, keep, restore)| Operation::ResetActivity(n, keep, restore)),
        1 => (0u8..5, 0u32..20).prop_map(|(n, close)| Operation::ActivityOptions(n, close)),
        1 => (0u8..2).prop_map(Operation::Pause),
        3 => Just(Operation::Unpause),
        1 => (0i32..3).prop_map(Operation::Priority),
        1 => (0u8..3).prop_map(Operation::Attach),
    ]
}
