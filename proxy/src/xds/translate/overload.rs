//! `OverloadManager` of the bootstrap.

use std::time::Duration;

use pillion_xds::envoy::config::overload::v3 as pb;
use pillion_xds::envoy::extensions::resource_monitors as monitors;
use prost_types::Any;

use super::at::At;
use super::common;
use crate::model::overload::{
    Action, ActionKind, Floor, Floors, Monitor, OverloadManager, Resource, Timer, Trigger,
};

const PREFIX: &str = "envoy.extensions.resource_monitors.";
const SCALE_TIMERS: &str = "envoy.config.overload.v3.ScaleTimersOverloadActionConfig";

/// `OverloadManager`
pub(super) fn manager(at: &At<'_>, config: &pb::OverloadManager) -> Option<OverloadManager> {
    let refresh_at = at.field("refresh_interval");
    let refresh = refresh_at.duration(config.refresh_interval).unwrap_or(Duration::from_secs(1));
    refresh_at.expect(refresh >= Duration::from_millis(1), "expected 1ms or more")?;
    let mut made = OverloadManager { refresh, ..OverloadManager::default() };
    for (i, monitor) in config.resource_monitors.iter().enumerate() {
        self::monitor(&at.field("resource_monitors").index(i), monitor, &mut made)?;
    }
    for (i, action) in config.actions.iter().enumerate() {
        let actions_at = at.field("actions");
        let at = actions_at.index(i);
        let Some(kind) = ActionKind::action(&action.name) else {
            return at.field("name").refuse(unsupported(&action.name));
        };
        let packed = at.field("typed_config");
        match (kind, &action.typed_config) {
            (ActionKind::ReduceTimeouts, given) => {
                made.floors = floors(&packed, packed.required(given.as_ref())?)?;
            }
            (_, Some(_)) => return packed.refuse("is not expected for this action"),
            (_, None) => {}
        }
        let action = triggered(&at, (&action.name, kind), &action.triggers, &made)?;
        made.actions.push(action);
    }
    for (i, point) in config.loadshed_points.iter().enumerate() {
        let points_at = at.field("loadshed_points");
        let at = points_at.index(i);
        let Some(kind) = ActionKind::point(&point.name) else {
            return at.field("name").refuse(format!("`{}` is not supported", point.name));
        };
        let point = triggered(&at, (&point.name, kind), &point.triggers, &made)?;
        made.points.push(point);
    }
    Some(made)
}

fn unsupported(name: &str) -> String {
    let why = match name {
        "envoy.overload_actions.reset_high_memory_stream" => {
            ": buffers of every stream are bounded here, none is larger than others"
        }
        _ => "",
    };
    format!("`{name}` is not supported{why}")
}

fn monitor(at: &At<'_>, config: &pb::ResourceMonitor, made: &mut OverloadManager) -> Option<()> {
    use pb::resource_monitor::ConfigType;
    at.field("name").expect(!config.name.is_empty(), "is empty")?;
    let twice = made.resources.iter().any(|known| *known.name == *config.name);
    at.field("name").expect(!twice, "stands twice")?;
    let at = at.field("typed_config");
    let Some(ConfigType::TypedConfig(packed)) = &config.config_type else {
        return at.refuse("is missing");
    };
    let kind = common::type_of(packed);
    let monitor = match kind.strip_prefix(PREFIX) {
        Some("fixed_heap.v3.FixedHeapConfig") => {
            let heap: monitors::fixed_heap::v3::FixedHeapConfig = common::unpack(&at, packed)?;
            let most = heap.max_heap_size_bytes;
            at.field("max_heap_size_bytes").expect(most > 0, "expected at least 1")?;
            Monitor::Memory(most)
        }
        Some("cgroup_memory.v3.CgroupMemoryConfig") => {
            let group: monitors::cgroup_memory::v3::CgroupMemoryConfig =
                common::unpack(&at, packed)?;
            Monitor::Cgroup(Some(group.max_memory_bytes).filter(|most| *most > 0))
        }
        Some("injected_resource.v3.InjectedResourceConfig") => {
            let file: monitors::injected_resource::v3::InjectedResourceConfig =
                common::unpack(&at, packed)?;
            at.field("filename").expect(!file.filename.is_empty(), "is empty")?;
            Monitor::File(file.filename.into())
        }
        Some("downstream_connections.v3.DownstreamConnectionsConfig") => {
            let limit: monitors::downstream_connections::v3::DownstreamConnectionsConfig =
                common::unpack(&at, packed)?;
            let most = u64::try_from(limit.max_active_downstream_connections).unwrap_or(0);
            let field = at.field("max_active_downstream_connections");
            field.expect(most > 0, "expected at least 1")?;
            made.max_connections = Some((config.name.as_str().into(), most));
            return Some(());
        }
        _ => return at.refuse(format!("`{kind}` is not supported")),
    };
    made.resources.push(Resource { name: config.name.as_str().into(), monitor });
    Some(())
}

fn triggered(
    at: &At<'_>,
    (name, kind): (&str, ActionKind),
    triggers: &[pb::Trigger],
    made: &OverloadManager,
) -> Option<Action> {
    let twice = made.actions.iter().chain(&made.points).any(|known| known.kind == kind);
    at.field("name").expect(!twice, "stands twice")?;
    let at = at.field("triggers");
    at.expect(!triggers.is_empty(), "expected at least one")?;
    let triggers = at.each(triggers, |at, one| trigger(at, one, made));
    Some(Action { name: name.into(), kind, triggers })
}

fn trigger(at: &At<'_>, config: &pb::Trigger, made: &OverloadManager) -> Option<(usize, Trigger)> {
    use pb::trigger::TriggerOneof;
    let named = made.resources.iter().position(|resource| *resource.name == *config.name);
    let Some(resource) = named else {
        let name = &config.name;
        return at.field("name").refuse(format!("no resource monitor is called `{name}`"));
    };
    let share = |value: f64| (0.0..=1.0).contains(&value);
    let trigger = match &config.trigger_oneof {
        Some(TriggerOneof::Threshold(threshold)) => {
            at.field("threshold").expect(share(threshold.value), "expected 0 to 1")?;
            Trigger::Threshold(threshold.value)
        }
        Some(TriggerOneof::Scaled(scaled)) => {
            let (from, to) = (scaled.scaling_threshold, scaled.saturation_threshold);
            let fits = share(from) && share(to) && from < to;
            at.field("scaled").expect(fits, "expected 0 to 1, the first below the second")?;
            Trigger::Scaled(from, to)
        }
        None => return at.refuse("expected threshold or scaled"),
    };
    Some((resource, trigger))
}

/// `ScaleTimersOverloadActionConfig`
fn floors(at: &At<'_>, packed: &Any) -> Option<Floors> {
    use pb::scale_timers_overload_action_config::TimerType;
    use pb::scale_timers_overload_action_config::scale_timer::OverloadAdjust;
    let kind = common::type_of(packed);
    at.expect(kind == SCALE_TIMERS, format!("`{kind}`: expected {SCALE_TIMERS}"))?;
    let config: pb::ScaleTimersOverloadActionConfig = common::unpack(at, packed)?;
    let at = at.field("timer_scale_factors");
    at.expect(!config.timer_scale_factors.is_empty(), "expected at least one")?;
    let mut floors = Floors::default();
    for (i, one) in config.timer_scale_factors.iter().enumerate() {
        let at = at.index(i);
        let timer = match one.timer() {
            TimerType::HttpDownstreamConnectionIdle => Timer::ConnectionIdle,
            TimerType::HttpDownstreamStreamIdle => Timer::StreamIdle,
            TimerType::TransportSocketConnect => Timer::TransportSocketConnect,
            TimerType::HttpDownstreamConnectionMax => Timer::ConnectionMax,
            other => {
                let name = other.as_str_name();
                return at.field("timer").refuse(format!("{name} is not supported"));
            }
        };
        let floor = match &one.overload_adjust {
            Some(OverloadAdjust::MinTimeout(time)) => {
                Floor::Time(at.field("min_timeout").duration(Some(*time))?)
            }
            Some(OverloadAdjust::MinScale(percent)) => {
                let share = percent.value / 100.0;
                let fits = (0.0..=1.0).contains(&share);
                at.field("min_scale").expect(fits, "expected 0 to 100")?;
                Floor::Share(share)
            }
            None => return at.refuse("expected min_timeout or min_scale"),
        };
        at.field("timer").expect(floors[timer as usize].is_none(), "stands twice")?;
        floors[timer as usize] = Some(floor);
    }
    Some(floors)
}

#[cfg(test)]
mod tests {
    use super::super::message;
    use super::*;

    fn refused(text: &str) -> Vec<String> {
        let text = format!("{{overload_manager: {text}}}");
        let parsed = pillion_xds::json::parse::<pillion_xds::envoy::config::bootstrap::v3::Bootstrap>(
            &text,
            pillion_xds::json::UnknownFields::Refuse,
        );
        let config = parsed.expect("readable").message.overload_manager.expect("given");
        match message(&config, manager) {
            Ok(_) => Vec::new(),
            Err(refused) => refused.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_with_its_place() {
        let file = "resource_monitors: [{name: f, typed_config: {'@type': type.googleapis.com/\
                    envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig, \
                    filename: /f}}]";
        let trigger = "triggers: [{name: f, threshold: {value: 1}}]";
        let action = |name: &str| format!("{{{file}, actions: [{{name: {name}, {trigger}}}]}}");
        assert_eq!(refused(&action("envoy.overload_actions.shrink_heap")), [""; 0]);
        assert_eq!(
            refused(&action("envoy.overload_actions.reset_high_memory_stream")),
            [
                "actions[0].name: `envoy.overload_actions.reset_high_memory_stream` is not supported: \
              buffers of every stream are bounded here, none is larger than others"
            ]
        );
        assert_eq!(
            refused(&action("envoy.overload_actions.reduce_timeouts")),
            ["actions[0].typed_config: is missing"]
        );
        assert_eq!(
            refused(
                "{actions: [{name: envoy.overload_actions.shrink_heap, \
                 triggers: [{name: g, threshold: {value: 1}}]}]}"
            ),
            ["actions[0].triggers[0].name: no resource monitor is called `g`"]
        );
        assert_eq!(
            refused("{buffer_factory_config: {minimum_account_to_track_power_of_two: 20}}"),
            ["buffer_factory_config: is not supported"]
        );
    }
}
