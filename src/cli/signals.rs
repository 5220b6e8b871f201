//! What a running server is told from outside (nats-server `handleSignals`).

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// SIGINT, SIGQUIT: stop, whatever goes on.
    Interrupt,
    /// SIGTERM: stop, unless lame duck mode is about to do that.
    Terminate,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: open the log file again.
    Reopen,
    /// SIGUSR2: lame duck mode.
    LameDuck,
}

impl Told {
    /// The signal's name as Go prints it.
    pub fn name(self) -> &'static str {
        match self {
            Told::Interrupt => "interrupt",
            Told::Terminate => "terminated",
            Told::Reload => "hangup",
            Told::Reopen => "user defined signal 1",
            Told::LameDuck => "user defined signal 2",
        }
    }
}

/// The signals that are listened to.
#[cfg(unix)]
pub struct Signals {
    listened: [(tokio::signal::unix::Signal, Told); 6],
}

#[cfg(unix)]
impl Signals {
    pub fn listen() -> Signals {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind, told| (signal(kind).expect("this signal can be listened to"), told);
        Signals {
            listened: [
                listen(SignalKind::interrupt(), Told::Interrupt),
                listen(SignalKind::quit(), Told::Interrupt),
                listen(SignalKind::terminate(), Told::Terminate),
                listen(SignalKind::hangup(), Told::Reload),
                listen(SignalKind::user_defined1(), Told::Reopen),
                listen(SignalKind::user_defined2(), Told::LameDuck),
            ],
        }
    }

    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> Told {
        std::future::poll_fn(|context| {
            for (signal, told) in &mut self.listened {
                if signal.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*told);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

#[cfg(not(unix))]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub fn listen() -> Signals {
        Signals
    }

    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> Told {
        let _ = tokio::signal::ctrl_c().await;
        Told::Interrupt
    }
}
