//! What the agent answers when it is asked whether it is alive, and whether the node is as the spec says. Pure.

use crate::agent::state::{AgentState, Phase};
use crate::model::time::Time;

/// So long after the time of its next pass an agent that does nothing is taken for dead, in milliseconds.
const OVERDUE: i64 = 5 * 60_000;

/// Whether the agent does what it should: it was not told to end, and what it wants to do next is not long past.
///
/// # Errors
/// Why it does not, for who asks.
pub fn alive(state: Option<&AgentState>, now: Time) -> Result<String, String> {
    let Some(state) = state else { return Err("the agent has not said anything of itself yet".to_owned()) };
    let idle = matches!(state.phase, Phase::Idle | Phase::Waiting);
    match &state.next_pass {
        _ if state.phase == Phase::Stopped => Err("the agent is ending".to_owned()),
        Some(next) if idle && now.0 > next.at.0.saturating_add(OVERDUE) => Err(format!("a pass was to begin at {} and has not", next.at)),
        _ => Ok("alive".to_owned()),
    }
}

/// Whether the node is as the spec says.
///
/// # Errors
/// What the agent says of it, for who asks.
pub fn ready(state: Option<&AgentState>) -> Result<String, String> {
    match state {
        Some(state) if state.phase != Phase::Stopped && state.converged => Ok("converged".to_owned()),
        Some(state) if state.says.is_empty() => Err("not converged".to_owned()),
        Some(state) => Err(state.says.clone()),
        None => Err("the first pass has not ended".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::state::NextPass;

    #[test]
    fn an_agent_that_does_nothing_when_it_should_is_not_alive() {
        let next = Some(NextPass { at: Time(1_000_000), ..NextPass::default() });
        let state = |phase| AgentState { phase, next_pass: next, ..AgentState::default() };
        let (soon, late) = (Time(1_000_000 + OVERDUE), Time(1_000_001 + OVERDUE));
        for (phase, now, is_alive) in [
            (Phase::Idle, soon, true),
            (Phase::Idle, late, false),
            (Phase::Waiting, late, false),
            (Phase::Running, late, true),
            (Phase::Starting, late, true),
            (Phase::Stopped, soon, false),
        ] {
            assert_eq!(alive(Some(&state(phase)), now).is_ok(), is_alive, "{phase:?} {now:?}");
        }
        assert!(alive(None, soon).is_err() && ready(None).is_err());
        // without anything to do there is no time for it
        assert!(alive(Some(&AgentState { phase: Phase::Idle, ..AgentState::default() }), late).is_ok());
    }

    #[test]
    fn ready_is_converged() {
        let state = AgentState { converged: true, says: "all well".to_owned(), ..AgentState::default() };
        assert!(ready(Some(&state)).is_ok());
        assert_eq!(ready(Some(&AgentState { converged: false, ..state.clone() })), Err("all well".to_owned()));
        assert!(ready(Some(&AgentState { phase: Phase::Stopped, ..state })).is_err());
    }
}
