//! Components: their model, and their state during and after jobs.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::super::body::{Object, member, text};
use super::super::jobs::{Job, Kind, Status};
use super::super::store::Resource;
use crate::message::seconds;
use crate::{APPLICATION_ID, COMPONENT_ID, ENVIRONMENT_ID, USERNAME, Upstreams};

/// Maximum number of deployments of a component; the sandbox's own limit.
const MAX_RELEASES: usize = 20;

pub struct Component {
    id: String,
    application_id: String,
    environment_id: String,
    creator: &'static str,
    created: i64,
    updated: i64,
    /// Spec of the last request.
    pub spec: Object,
    /// State after the last finished job.
    state: &'static str,
    fail_detail: Option<&'static str>,
    last_job: String,
    running_job: Option<RunningJob>,
    /// Deployments, newest last.
    releases: VecDeque<Release>,
}

/// A running job.
pub struct RunningJob {
    pub job: Job,
    /// State while the job runs.
    pub meanwhile: &'static str,
    /// State afterwards; `None` if the component is deleted.
    pub then: Option<&'static str>,
}

/// A deployment.
struct Release {
    deploy_type: &'static str,
    spec: Object,
    /// Actions of the deployment, each with its job.
    jobs: Vec<(&'static str, Job)>,
}

impl Resource for Component {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Component {
    /// Builds a component that `job` deploys.
    pub fn new(
        id: String,
        check_parents: [&str; 2],
        creator: &'static str,
        now: i64,
        spec: Object,
        job: Job,
    ) -> Self {
        let [application, environment] = check_parents;
        let mut component = Self {
            id,
            application_id: application.to_owned(),
            environment_id: environment.to_owned(),
            creator,
            created: now,
            updated: now,
            spec,
            // Visible from the start: no earlier state exists.
            state: "INITIALIZING",
            fail_detail: None,
            last_job: String::new(),
            running_job: None,
            releases: VecDeque::new(),
        };
        component.record_deployment("create", &job);
        component.begin(RunningJob {
            job,
            meanwhile: "INITIALIZING",
            then: Some("RUNNING"),
        });
        component
    }

    /// Builds the component that exists at the start.
    pub fn preloaded(now: i64) -> Self {
        let spec = json!({
            "name": "order-svc",
            "description": "order service",
            "labels": [],
            "runtime_stack": {"name": "OpenJDK8", "type": "Java", "version": "1.3.0", "deploy_mode": "container"},
            "source": {"kind": "package", "url": "obs://bucket-a/pkg/order-svc-1.0.1.jar",
                "version": "1.0.1", "storage": "obs", "auth": "iam"},
            "replica": 2,
            "version": "1.0.1",
            "refer_resources": [{"id": "5e0a1c7b-3d94-11ee-8f26-0255ac100b0a", "type": "cce",
                "parameters": {"namespace": "default"}}],
        });
        let spec = match spec {
            Value::Object(spec) => spec,
            _ => Object::new(),
        };
        let job = Job::finished("JOB2f0c9a51-6d3b-4f2e-9b47-8a1d5c6e7f80", Kind::Provision);
        Self::new(
            COMPONENT_ID.to_owned(),
            [APPLICATION_ID, ENVIRONMENT_ID],
            USERNAME,
            now,
            spec,
            job,
        )
    }

    pub fn application_id(&self) -> &str {
        &self.application_id
    }

    pub fn environment_id(&self) -> &str {
        &self.environment_id
    }

    pub fn creator(&self) -> &'static str {
        self.creator
    }

    /// Returns the name of its runtime stack.
    pub fn stack_name(&self) -> &str {
        member(&self.spec, "runtime_stack")["name"]
            .as_str()
            .unwrap_or_default()
    }

    /// Returns the jobs of its deployments.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        let releases = self.releases.iter();
        releases.flat_map(|release| release.jobs.iter().map(|(_, job)| job))
    }

    /// Returns whether the last task of its next job fails, which its name decides.
    pub fn fails(&self) -> bool {
        text(&self.spec, "name").contains("fail")
    }

    /// Returns whether a job is running.
    pub fn is_busy(&self) -> bool {
        self.running_job.is_some()
    }

    /// Returns the state after the last finished job.
    pub fn state(&self) -> &'static str {
        self.state
    }

    /// Starts a job in place of the previous one, even if that is still running.
    pub fn begin(&mut self, running_job: RunningJob) {
        self.last_job = running_job.job.id().to_owned();
        self.running_job = Some(running_job);
    }

    /// Records that the current `spec` is being deployed.
    pub fn record_deployment(&mut self, deploy_type: &'static str, job: &Job) {
        if self.releases.len() == MAX_RELEASES {
            self.releases.pop_front();
        }
        self.releases.push_back(Release {
            deploy_type,
            spec: self.spec.clone(),
            jobs: vec![(deploy_type, job.clone())],
        });
    }

    /// Records that the deployment continues.
    pub fn record_continuation(&mut self, deploy_type: &'static str, job: &Job) {
        if let Some(release) = self.releases.back_mut() {
            release.jobs.push((deploy_type, job.clone()));
        }
    }

    /// Returns the spec of the last deployment of this version.
    pub fn spec_of(&self, version: &str) -> Option<&Object> {
        let mut specs = self.releases.iter().rev().map(|release| &release.spec);
        specs.find(|spec| text(spec, "version") == version)
    }

    /// Returns the spec of the deployment before the last one.
    pub fn spec_before(&self) -> Option<&Object> {
        let mut specs = self.releases.iter().rev().map(|release| &release.spec);
        specs.nth(1)
    }

    pub fn set_update_time(&mut self, now: i64) {
        self.updated = now;
    }

    /// Applies the result of a finished job. Returns false if the component is deleted.
    pub fn apply_finished_jobs(&mut self, upstreams: &Upstreams) -> bool {
        let Some(RunningJob { job, then, .. }) = &self.running_job else {
            return true;
        };
        let status = job.status(upstreams);
        let Some(end_time) = job.end_time(upstreams) else {
            return true;
        };
        match (status, *then) {
            (Status::Succeeded, None) => return false,
            (Status::Succeeded, Some(then)) => {
                self.state = then;
                self.fail_detail = None;
            }
            _ => {
                self.state = "FAILED";
                self.fail_detail = Some(match then {
                    None => "delete_failed",
                    Some(_) => "create_failed",
                });
            }
        }
        self.updated = self.updated.max(end_time);
        self.running_job = None;
        true
    }

    /// Returns the visible state: after a change still the old one until the job leaves
    /// SUBMITTED (docs/apis/servicestage.md, "Jobs").
    fn visible_state(&self, upstreams: &Upstreams) -> &'static str {
        match &self.running_job {
            Some(RunningJob {
                meanwhile,
                then: None,
                ..
            }) => meanwhile,
            Some(running_job) if running_job.job.status(upstreams) != Status::Submitted => {
                running_job.meanwhile
            }
            _ => self.state,
        }
    }

    pub fn status_view(&self, upstreams: &Upstreams) -> Value {
        let state = self.visible_state(upstreams);
        let replica = member(&self.spec, "replica").as_i64().unwrap_or(1);
        let is_up = matches!(state, "RUNNING" | "GRAYING" | "UPGRADING" | "RESTARTING");
        let source = member(&self.spec, "source");
        let mut view = json!({
            "component_status": state,
            "available_replica": if is_up { replica } else { 0 },
            "replica": replica,
            "last_job_id": self.last_job,
            "creator": self.creator,
            "create_time": self.created,
            "update_time": self.updated,
            "artifact": {
                "type": if source["kind"] == "package" { "package" } else { "image" },
                "url": source["url"].as_str().unwrap_or_default(),
            },
        });
        if let Some(detail) = self.fail_detail {
            view["fail_detail"] = json!(detail);
        }
        view
    }

    /// In the order of the deployments.
    pub fn record_views(&self, upstreams: &Upstreams) -> Vec<Value> {
        let last = self.releases.len().saturating_sub(1);
        let records = self.releases.iter().enumerate();
        records
            .map(|(at, release)| self.record_view(release, at == last, upstreams))
            .collect()
    }

    fn record_view(&self, release: &Release, is_last: bool, upstreams: &Upstreams) -> Value {
        let jobs = release.jobs.iter().enumerate();
        let jobs: Vec<Value> = jobs
            .map(|(sequence, (deploy_type, job))| {
                let gray = &member(&release.spec, "deploy_strategy")["gray_release"];
                let number = |name: &str| gray[name].as_i64().unwrap_or_default();
                json!({
                    "sequence": sequence,
                    "deploy_type": deploy_type,
                    "job_id": job.id(),
                    "job_info": {
                        "deploy_type": deploy_type,
                        "source_url": member(&release.spec, "source")["url"].as_str().unwrap_or_default(),
                        "first_batch_weight": number("first_batch_weight"),
                        "first_batch_replica": number("first_batch_replica"),
                        "replica": member(&release.spec, "replica").as_i64().unwrap_or(1),
                        "remaining_batch": number("remaining_batch"),
                    },
                })
            })
            .collect();
        let mut view = json!({
            "begin_time": "",
            "description": {"operator": self.creator},
            "instance_id": self.id,
            "version": text(&release.spec, "version"),
            "current_used": is_last,
            "deploy_type": release.deploy_type,
            "jobs": jobs,
        });
        // The time format and the values of `status` are undocumented and the sandbox's
        // own.
        if let (Some((_, first)), Some((_, last))) = (release.jobs.first(), release.jobs.last()) {
            view["begin_time"] = json!(instant(first.start_time(upstreams)));
            view["status"] = json!(last.status(upstreams).text());
            if let Some(end_time) = last.end_time(upstreams) {
                view["end_time"] = json!(instant(end_time));
            }
        }
        view
    }
}

fn instant(at: i64) -> String {
    let at = std::time::Duration::from_millis(u64::try_from(at).unwrap_or_default());
    let text = seconds(std::time::UNIX_EPOCH + at);
    text.replace('Z', &format!(".{:03}Z", at.subsec_millis()))
}
