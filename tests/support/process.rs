//! The built gateway as a process with its own environment.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running gateway; killed when dropped.
pub struct Process {
    pub address: SocketAddr,
    child: Child,
    stdout: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
}

impl Process {
    /// Starts a gateway with these upstreams, in its own directory, which is its home.
    pub fn start(upstreams: &str, env: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), upstreams, env)
    }

    /// As [`Process::start`], in this folder.
    pub fn start_in(folder: tempfile::TempDir, upstreams: &str, env: &[(&str, &str)]) -> Self {
        let config = folder.path().join("drawbridge.toml");
        let listen = "[listen]\ngrpc = \"127.0.0.1:0\"\nadmin = \"off\"\n";
        std::fs::write(&config, format!("{listen}{upstreams}")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_drawbridge"))
            .arg("--config")
            .arg(&config)
            .env_clear()
            .env("HOME", folder.path())
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("serves gRPC on ") {
            line.clear();
            if stdout.read_line(&mut line).unwrap() == 0 {
                let log = std::fs::read_to_string(folder.path().join("log"));
                panic!("it did not start: {log:?}");
            }
        }
        Self {
            address: line.trim().rsplit(' ').next().unwrap().parse().unwrap(),
            child,
            stdout,
            folder,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it and returns its output. The second SIGINT, if it is necessary, ends calls that
    /// hang; SIGKILL would cut off the end of the log.
    pub fn stop(mut self) -> String {
        while self.child.try_wait().unwrap().is_none() {
            let id = self.id().to_string();
            // It may exit meanwhile.
            let _ = Command::new("kill").args(["-s", "INT", &id]).status();
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let mut text = std::io::read_to_string(&mut self.stdout).unwrap();
        text += &std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
