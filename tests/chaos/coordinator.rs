//! A coordinator that can be killed at any instant: it lives in a runtime of its own, which ends with everything in it.

use std::time::Duration;

use natterjack::client::{Client, ConnectOptions};
use natterjack::coordinator::{Coordinator, Options, Settings};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Times that fit into a round.
fn settings() -> Settings {
    Settings {
        grace: Duration::from_millis(200),
        heartbeat: Duration::from_millis(300),
        probe: Duration::from_millis(50),
        accept_timeout: Duration::from_millis(600),
        sweep: Duration::from_millis(50),
        cancel_grace: Duration::from_millis(300),
        call_timeout: Duration::from_millis(400),
        ..Settings::default()
    }
}

pub struct Process {
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<String>,
}

impl Process {
    /// Starts one that connects to `url`, now or when somebody listens there.
    pub fn start(url: String) -> Process {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (stop, mut stopped) = oneshot::channel();
        let (tell, ended) = oneshot::channel();
        runtime.spawn(async move {
            let mut coordinator = loop {
                let name = "coordinator".to_owned();
                let options = ConnectOptions { name, connect_timeout: Duration::from_secs(1), ..Default::default() };
                if let Ok(client) = Client::connect_with(&url, options).await {
                    let options = Options { settings: settings(), ..Options::default() };
                    match Coordinator::start(client.clone(), options).await {
                        Ok(coordinator) => break coordinator,
                        Err(_) => client.close().await,
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            tokio::select! {
                _ = &mut stopped => coordinator.stop().await,
                reason = coordinator.ended() => drop(tell.send(reason)),
            }
        });
        Process { runtime: Some(runtime), stop: Some(stop), ended }
    }

    /// Why it ended by itself, which it never should.
    pub fn fault(&mut self) -> Option<String> {
        self.ended.try_recv().ok()
    }

    /// Lets it finish what it is at, a little while.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
