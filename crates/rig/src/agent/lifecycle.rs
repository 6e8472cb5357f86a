//! The events of a deployment in place, in their order.

use super::settings::Traffic;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    BeforeBlockTraffic,
    BlockTraffic,
    AfterBlockTraffic,
    ApplicationStop,
    DownloadBundle,
    BeforeInstall,
    Install,
    AfterInstall,
    ApplicationStart,
    ValidateService,
    BeforeAllowTraffic,
    AllowTraffic,
    AfterAllowTraffic,
}

use Event::*;

/// With a load balancer; the first and the last three are its.
const ALL: [Event; 13] = [
    BeforeBlockTraffic,
    BlockTraffic,
    AfterBlockTraffic,
    ApplicationStop,
    DownloadBundle,
    BeforeInstall,
    Install,
    AfterInstall,
    ApplicationStart,
    ValidateService,
    BeforeAllowTraffic,
    AllowTraffic,
    AfterAllowTraffic,
];

/// The events, with or without those of a load balancer.
pub fn all(traffic: Traffic) -> impl Iterator<Item = Event> {
    ALL.into_iter().filter(move |event| traffic == Traffic::Balanced || !event.is_of_a_balancer())
}

/// Whether an event of this name is known to CodeDeploy.
pub fn is_known(name: &str) -> bool {
    ALL.iter().any(|event| event.name() == name)
}

impl Event {
    /// Its name in an appspec.
    pub fn name(self) -> &'static str {
        match self {
            BeforeBlockTraffic => "BeforeBlockTraffic",
            BlockTraffic => "BlockTraffic",
            AfterBlockTraffic => "AfterBlockTraffic",
            ApplicationStop => "ApplicationStop",
            DownloadBundle => "DownloadBundle",
            BeforeInstall => "BeforeInstall",
            Install => "Install",
            AfterInstall => "AfterInstall",
            ApplicationStart => "ApplicationStart",
            ValidateService => "ValidateService",
            BeforeAllowTraffic => "BeforeAllowTraffic",
            AllowTraffic => "AllowTraffic",
            AfterAllowTraffic => "AfterAllowTraffic",
        }
    }

    /// Whether its scripts come from the bundle that was installed before. They run before the new one is there.
    pub fn is_of_the_previous_bundle(self) -> bool {
        matches!(self, ApplicationStop | BeforeBlockTraffic | AfterBlockTraffic)
    }

    fn is_of_a_balancer(self) -> bool {
        self.name().ends_with("Traffic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_load_balancer_seven_events_run_in_order() {
        let names: Vec<_> = all(Traffic::Alone).map(Event::name).collect();
        let wanted =
            "ApplicationStop DownloadBundle BeforeInstall Install AfterInstall ApplicationStart ValidateService";
        assert_eq!(names.join(" "), wanted);
    }

    #[test]
    fn a_load_balancer_lets_go_of_the_host_first_and_takes_it_back_last() {
        let names: Vec<_> = all(Traffic::Balanced).map(Event::name).collect();
        assert_eq!(names[..4], ["BeforeBlockTraffic", "BlockTraffic", "AfterBlockTraffic", "ApplicationStop"]);
        assert_eq!(names[9..], ["ValidateService", "BeforeAllowTraffic", "AllowTraffic", "AfterAllowTraffic"]);
    }
}
