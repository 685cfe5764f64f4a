//! A run: events in the order of their time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use outrigger_proxy::balance::{InFlight, LoadReport, Settings};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::policy::{Choosers, Policy, Reports};
use crate::replica::{self, Model, Replica};
use crate::report::{Figures, Times};
use crate::workload::Request;
use crate::{SECOND, Time, seconds};

/// What stays the same for all policies that are compared.
#[derive(Clone, Debug)]
pub struct World {
    pub replicas: usize,
    pub sidecars: usize,
    pub model: Model,
    pub reports: Reports,
    /// Seconds between reports out of band; 0: only with responses.
    pub report_interval: f64,
    /// Seconds from a sidecar to a replica.
    pub latency: f64,
    /// Sessions are what requests are told by.
    pub by_session: bool,
    /// Speeds of single replicas, as a part of the model's.
    pub slow: Vec<f64>,
    pub settings: Settings,
    pub seed: u64,
}

impl Default for World {
    fn default() -> World {
        World {
            replicas: 8,
            sidecars: 32,
            model: Model::default(),
            reports: Reports::Engine,
            report_interval: 1.0,
            latency: 0.0005,
            by_session: false,
            slow: Vec::new(),
            settings: Settings::default(),
            seed: 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    /// A client's request comes to a sidecar.
    Comes(usize),
    /// It comes to its replica.
    Arrives(usize),
    /// A replica ends a step.
    Step(usize),
    /// The first token comes to the sidecar.
    FirstToken(usize),
    /// The last one does.
    Ends(usize),
    /// A replica says to a sidecar what it has to do, each time by itself.
    Report(usize, usize),
}

struct Simulation<'a> {
    world: &'a World,
    requests: &'a [Request],
    choosers: Choosers,
    replicas: Vec<Replica>,
    queue: BinaryHeap<Reverse<(Time, u64, usize)>>,
    events: Vec<Event>,
    /// By request.
    flights: Vec<Flight>,
    /// Requests that wait for the end of another.
    next: Vec<Option<usize>>,
    rng: StdRng,
    left: usize,
    steps: Vec<replica::Event>,
}

#[derive(Default)]
struct Flight {
    times: Times,
    replica: usize,
    sidecar: usize,
    in_flight: Option<InFlight>,
    /// What the replica said with the first token, and with the last.
    report: Option<LoadReport>,
}

/// Runs the requests with a policy.
pub fn run(world: &World, policy: Policy, requests: &[Request]) -> Figures {
    let mut model_of = vec![world.model; world.replicas];
    for (model, speed) in model_of.iter_mut().zip(&world.slow) {
        model.prefill *= speed;
        model.step /= speed;
        model.per_stream /= speed;
    }
    let mut next = vec![None; requests.len()];
    for (index, request) in requests.iter().enumerate() {
        if let Some(before) = request.after {
            next[before] = Some(index);
        }
    }
    let mut simulation = Simulation {
        world,
        requests,
        choosers: Choosers::new(
            policy,
            &world.settings,
            world.sidecars,
            world.replicas,
            world.seed,
        ),
        replicas: model_of.into_iter().map(Replica::new).collect(),
        queue: BinaryHeap::new(),
        events: Vec::new(),
        flights: requests.iter().map(|_| Flight::default()).collect(),
        next,
        rng: StdRng::seed_from_u64(world.seed ^ 0x5eed),
        left: requests.len(),
        steps: Vec::new(),
    };
    for (index, request) in requests.iter().enumerate() {
        if request.after.is_none() {
            // From the first second on: a time of 0 is none.
            simulation.at(SECOND + request.at, Event::Comes(index));
        }
    }
    if world.report_interval > 0.0 && world.reports != Reports::None {
        // Each at its own time: at the same moment all sidecars would learn, and do, the same.
        for sidecar in 0..world.sidecars {
            for replica in 0..world.replicas {
                let phase = simulation.rng.random::<f64>() * world.report_interval;
                simulation.at(SECOND + seconds(phase), Event::Report(sidecar, replica));
            }
        }
    }
    simulation.run();
    let times: Vec<Times> = simulation
        .flights
        .into_iter()
        .map(|flight| flight.times)
        .collect();
    let done: Vec<_> = simulation
        .replicas
        .iter()
        .map(|replica| replica.done)
        .collect();
    Figures::new(policy, requests, &times, &done)
}

impl Simulation<'_> {
    fn at(&mut self, time: Time, event: Event) {
        self.queue
            .push(Reverse((time, self.events.len() as u64, self.events.len())));
        self.events.push(event);
    }

    fn run(&mut self) {
        while let Some(Reverse((now, _, event))) = self.queue.pop() {
            match self.events[event] {
                Event::Comes(request) => self.comes(now, request),
                Event::Arrives(request) => self.arrives(now, request),
                Event::Step(replica) => self.step(now, replica),
                Event::FirstToken(request) => self.first_token(now, request),
                Event::Ends(request) => self.ends(now, request),
                Event::Report(sidecar, replica) => self.report(now, sidecar, replica),
            }
        }
    }

    fn latency(&self) -> Time {
        seconds(self.world.latency)
    }

    fn comes(&mut self, now: Time, index: usize) {
        let request = &self.requests[index];
        let flight = &mut self.flights[index];
        flight.times.came = now;
        match &mut self.choosers {
            Choosers::Sidecars(sidecars) => {
                flight.sidecar = self.rng.random_range(0..sidecars.len());
                let chosen = sidecars[flight.sidecar].send(now, request, self.world.by_session);
                if let Some((replica, in_flight)) = chosen {
                    flight.replica = replica;
                    flight.in_flight = Some(in_flight);
                }
            }
            Choosers::Central(central) => {
                flight.replica = central.choose(now, request, &self.replicas);
                central.under_way[flight.replica] += 1;
            }
        }
        self.at(now + self.latency(), Event::Arrives(index));
    }

    fn arrives(&mut self, now: Time, index: usize) {
        let replica = self.flights[index].replica;
        if !self.replicas[replica].add(index, &self.requests[index]) {
            self.flights[index].times.refused = true;
            self.at(now + self.latency(), Event::Ends(index));
            return;
        }
        if !self.replicas[replica].is_stepping {
            self.begin_step(now, replica);
        }
    }

    fn begin_step(&mut self, now: Time, replica: usize) {
        let time = self.replicas[replica].begin_step(self.requests);
        self.replicas[replica].is_stepping = time.is_some();
        if let Some(time) = time {
            self.at(now + time, Event::Step(replica));
        }
    }

    fn step(&mut self, now: Time, replica: usize) {
        let mut steps = std::mem::take(&mut self.steps);
        self.replicas[replica].end_step(self.requests, &mut steps);
        for event in steps.drain(..) {
            let (index, event) = match event {
                replica::Event::FirstToken(index) => (index, Event::FirstToken(index)),
                replica::Event::End(index) => (index, Event::Ends(index)),
            };
            self.flights[index].report = self
                .world
                .reports
                .of(&self.replicas[replica], self.requests);
            self.at(now + self.latency(), event);
        }
        self.steps = steps;
        self.begin_step(now, replica);
    }

    fn first_token(&mut self, now: Time, index: usize) {
        self.flights[index].times.first_token = now;
        let flight = &mut self.flights[index];
        if let Some(in_flight) = &mut flight.in_flight {
            outrigger_proxy::balance::simulation::first_token(in_flight, now);
        }
        self.take_report(now, index);
    }

    fn ends(&mut self, now: Time, index: usize) {
        let flight = &mut self.flights[index];
        flight.times.ended = now;
        if let Some(in_flight) = &mut flight.in_flight {
            // Refused: not what is compared here, but it must not look fast.
            outrigger_proxy::balance::simulation::first_token(in_flight, now);
        }
        flight.in_flight = None;
        let replica = flight.replica;
        self.take_report(now, index);
        if let Choosers::Central(central) = &mut self.choosers {
            central.under_way[replica] -= 1;
        }
        self.left -= 1;
        if let Some(next) = self.next[index] {
            self.at(now + self.requests[next].at, Event::Comes(next));
        }
    }

    fn take_report(&mut self, now: Time, index: usize) {
        let flight = &self.flights[index];
        if let (Choosers::Sidecars(sidecars), Some(report)) = (&self.choosers, &flight.report) {
            sidecars[flight.sidecar].report(now, flight.replica, report);
        }
    }

    /// Out of band.
    fn report(&mut self, now: Time, sidecar: usize, replica: usize) {
        let reports = self.world.reports;
        if let (Choosers::Sidecars(sidecars), Some(report)) = (
            &self.choosers,
            reports.of(&self.replicas[replica], self.requests),
        ) {
            sidecars[sidecar].report(now, replica, &report);
        }
        if self.left > 0 {
            let event = Event::Report(sidecar, replica);
            self.at(now + seconds(self.world.report_interval), event);
        }
    }
}
