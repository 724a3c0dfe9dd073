//! Objects that exist at the start. Names and ids are the sandbox's own, except for
//! service 2004, which is that of `tests/seeds/5-jp1ao-service-release.json`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::properties::{Definition, Property};
use super::schedules::Schedule;
use super::services::Service;
use super::start_times::StartTimes;
use super::task_run::{Run, Step, StepKind};
use super::tasks::Task;
use super::templates::Template;
use super::{Jp1ao, time_format};
use crate::JP1AO_USERNAME;

/// Last id of a preloaded object: the first submitted task is 10001.
pub const LAST_ID: u64 = 10_000;
/// The same for properties, steps and definitions.
pub const LAST_PART: u64 = 100_000;
/// Creation time of the preloaded objects.
const CREATION_TIME: &str = "2015-07-01T09:00:00.000+09:00";
/// Property with the number of the step at which a task fails, from 1; 0 for none.
pub const FAIL_AT_PROPERTY: &str = "startvm.failAtStep";

/// Service group of most services.
pub const DEFAULT_GROUP: u64 = 1001;
const OPERATIONS: u64 = 1002;

pub struct ServiceGroup {
    pub id: u64,
    pub object: &'static str,
    pub name: &'static str,
    pub description: &'static str,
}

pub const SERVICE_GROUPS: [ServiceGroup; 2] = [
    ServiceGroup {
        id: DEFAULT_GROUP,
        object: "Automation_RG_DEFAULT",
        name: "DefaultServiceGroup",
        description: "Services of no other group",
    },
    ServiceGroup {
        id: OPERATIONS,
        object: "Automation_RG_OPERATIONS",
        name: "Operations",
        description: "",
    },
];

pub const TAG_GROUPS: [(&str, &[&str]); 2] = [
    ("Resources", &["Storage", "Server", "Network"]),
    ("Times", &["Night shift"]),
];

pub fn group_name(id: u64) -> &'static str {
    SERVICE_GROUPS
        .iter()
        .find(|group| group.id == id)
        .map_or("", |group| group.name)
}

pub fn group_id(name: &str) -> Option<u64> {
    SERVICE_GROUPS
        .iter()
        .find(|group| group.name == name)
        .map(|group| group.id)
}

const DISK: u64 = 3001;
const ALLOCATE: u64 = 3002;
const START: u64 = 3003;
const DISK_NEW: u64 = 3004;
const COMPONENT: u64 = 3005;

fn work(name: &str) -> (String, StepKind) {
    (name.to_owned(), StepKind::Plain)
}

fn disk_flow() -> Vec<(String, StepKind)> {
    let wait_for_input = StepKind::WaitForInput {
        question: "The machine has to be restarted. Go on?".to_owned(),
        buttons: vec!["Continue".to_owned(), "Cancel".to_owned()],
    };
    vec![
        work("Check the machine"),
        work("Create the disk"),
        ("Ask the operator".to_owned(), wait_for_input),
        work("Attach the disk"),
    ]
}

fn definition(key: &str, kind: &str, visibility: &str, default: &str) -> Definition {
    Definition {
        id: 0,
        key: key.to_owned(),
        display: key.to_owned(),
        description: String::new(),
        kind: kind.to_owned(),
        mode: "in".to_owned(),
        visibility: visibility.to_owned(),
        scope: "local".to_owned(),
        required: false,
        default: default.to_owned(),
        range: None,
        length: 256,
        choices: String::new(),
        group: "Common".to_owned(),
        read_only: false,
        hidden: false,
        template: None,
    }
}

fn disk_definitions() -> Vec<Definition> {
    let of_disk = |definition: Definition| Definition {
        group: "Disk".to_owned(),
        ..definition
    };
    vec![
        Definition {
            required: true,
            ..definition("common.vmName", "string", "exec", "web01")
        },
        Definition {
            range: Some((1, 1024)),
            required: true,
            ..of_disk(definition("disk.sizeGB", "integer", "exec", "10"))
        },
        Definition {
            choices: "thin,thick".to_owned(),
            ..of_disk(definition("disk.type", "list", "exec", "thin"))
        },
        of_disk(definition("disk.format", "boolean", "exec", "true")),
        definition("common.vcenterPassword", "password", "config", "secret"),
        Definition {
            read_only: true,
            ..definition("common.vcenter", "string", "config", "vcenter.example")
        },
        Definition {
            hidden: true,
            ..definition("common.internal", "string", "exec", "internal")
        },
        Definition {
            mode: "out".to_owned(),
            ..of_disk(definition("disk.id", "string", "exec", ""))
        },
    ]
}

fn templates(made: SystemTime) -> Vec<Template> {
    let template = |id: u64, key: &str, display: &str, version: &str| Template {
        id,
        key: key.to_owned(),
        display: display.to_owned(),
        vendor_id: "com.hitachi.software.dna".to_owned(),
        vendor: "Hitachi, Ltd.".to_owned(),
        version: version.to_owned(),
        tags: "Storage".to_owned(),
        description: "A service template of the sandbox".to_owned(),
        made,
        state: "release",
        schedule_types: "immediate,schedule,recurrence".to_owned(),
        definitions: Vec::new(),
        flow: Vec::new(),
        components: Vec::new(),
        file: None,
    };
    let with = |template: Template, definitions: Vec<Definition>| {
        let id = template.id;
        let numbered = definitions.into_iter().enumerate().map(|(at, definition)| {
            // 4100 and following for template 3001, and so on.
            let id = 4000 + (id - 3000) * 100 + at as u64;
            Arc::new(Definition {
                id,
                template: Some(template.id),
                ..definition
            })
        });
        Template {
            definitions: numbered.collect(),
            ..template.clone()
        }
    };
    vec![
        with(
            Template {
                flow: disk_flow(),
                components: vec![COMPONENT],
                ..template(DISK, "addDisk", "Add New Virtual Disk", "01.13.00")
            },
            disk_definitions(),
        ),
        with(
            Template {
                flow: vec![
                    work("Find free capacity"),
                    ("Create the volumes".to_owned(), StepKind::Long),
                    work("Map the volumes"),
                ],
                ..template(ALLOCATE, "allocateVolumes", "Allocate Volumes", "01.13.00")
            },
            vec![Definition {
                range: Some((1, 16)),
                ..definition("volume.count", "integer", "exec", "1")
            }],
        ),
        with(
            Template {
                flow: vec![
                    work("Find the machines"),
                    work("Start the machines"),
                    work("Wait for the machines"),
                ],
                ..template(START, "startVM", "Start Virtual Machines", "01.13.00")
            },
            vec![
                Definition {
                    required: true,
                    ..definition("startvm.hosts", "string", "exec", "night01,night02")
                },
                Definition {
                    range: Some((0, 3)),
                    ..definition(FAIL_AT_PROPERTY, "integer", "exec", "0")
                },
            ],
        ),
        with(
            Template {
                flow: disk_flow(),
                components: vec![COMPONENT],
                ..template(DISK_NEW, "addDisk", "Add New Virtual Disk", "01.14.00")
            },
            disk_definitions(),
        ),
        Template {
            flow: vec![work("Connect")],
            state: "debug",
            tags: String::new(),
            ..template(COMPONENT, "vcenter", "Connect to vCenter", "01.00.00")
        },
    ]
}

/// Fills an empty state. With `tasks` also adds finished tasks.
pub fn fill(jp1ao: &mut Jp1ao, tasks: bool, now: SystemTime) {
    let made = time_format::parse(CREATION_TIME, true).unwrap_or(now);
    jp1ao.templates = templates(made);
    let shared = [
        definition("share.mailServer", "string", "config", "mail.example"),
        definition("share.mailPort", "integer", "config", "25"),
    ];
    for (at, one) in (0..).zip(shared) {
        let one = Arc::new(Definition {
            id: 4900 + at,
            scope: "shared".to_owned(),
            ..one
        });
        jp1ao.shared.push(Property::new(5900 + at, &one));
    }
    let services: [(u64, &str, u64, &'static str, bool, &str, u64); 6] = [
        (
            2004,
            "Add disks to the web servers",
            DISK,
            "test",
            false,
            "Storage",
            DEFAULT_GROUP,
        ),
        (
            2005,
            "Add disks to the databases",
            DISK,
            "release",
            true,
            "Storage",
            DEFAULT_GROUP,
        ),
        (
            2006,
            "Volumes for the archive",
            ALLOCATE,
            "maintenance",
            false,
            "Storage",
            DEFAULT_GROUP,
        ),
        (
            2007,
            "Volumes for the backup",
            ALLOCATE,
            "disabled",
            false,
            "Storage",
            DEFAULT_GROUP,
        ),
        (
            2008,
            "Start the night's machines",
            START,
            "release",
            false,
            "Server,Night shift",
            OPERATIONS,
        ),
        (
            2009,
            "Try the machines out",
            START,
            "debug",
            false,
            "Server",
            OPERATIONS,
        ),
    ];
    for (id, name, template, state, favorite, tags, group) in services {
        let Some(template) = jp1ao.templates.iter().find(|one| one.id == template) else {
            continue;
        };
        let properties = (0..).zip(&template.definitions);
        let service = Service {
            description: "A service of the sandbox".to_owned(),
            tags: tags.to_owned(),
            group,
            favorite,
            state,
            properties: properties
                .map(|(at, one)| Property::new(5000 + (id - 2000) * 20 + at, one))
                .collect(),
            ..Service::new(id, name, template, made)
        };
        jp1ao.services.push(service);
    }
    if tasks {
        past(jp1ao, now);
    }
}

/// Adds yesterday's completed task and last night's failed one.
fn past(jp1ao: &mut Jp1ao, now: SystemTime) {
    for (id, service, name, hours, fails) in [
        (6001, 2006, "Volumes of yesterday", 24, false),
        (6002, 2008, "Machines of the night", 6, true),
    ] {
        let start = now - Duration::from_secs(hours * 3600);
        let Some(service) = jp1ao.services.iter().find(|one| one.id == service) else {
            continue;
        };
        let Some(template) = jp1ao
            .templates
            .iter()
            .find(|one| one.id == service.template)
        else {
            continue;
        };
        let steps = (id * 10..).zip(&template.flow);
        let mut steps: Vec<Step> = steps
            .map(|(id, (name, work))| Step::new(id, name, work.clone()))
            .collect();
        if let Some(step) = steps.get_mut(1) {
            step.fails = fails;
        }
        let mut run = Run::new(start, steps);
        run.advance(now, Duration::from_secs(60));
        run.take_events();
        let schedule = Schedule {
            id: id + 1000,
            name: name.to_owned(),
            description: String::new(),
            submitter: JP1AO_USERNAME,
            made: start,
            modified: start,
            start_times: StartTimes::Immediate,
            scheduled: start,
            service: service.id,
            service_state: "release",
            group: service.group,
            template: service.template,
            properties: Vec::new(),
            canceled: false,
        };
        let task = Task {
            run,
            todo: fails,
            ..Task::new(id, &schedule, service, start)
        };
        jp1ao.tasks.push(task);
        jp1ao.schedules.push(schedule);
    }
}
