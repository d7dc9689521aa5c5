//! One export over AoE and iSCSI at once: is it one device?
//!
//! Several sessions of both protocols read and write overlapping ranges of several blocks, many
//! commands at a time. The checker then proves, for each epoch, that one order of all commands
//! explains everything that was read (`corbel_tests::checker`).
//!
//! Exit code 0: no fault found; 1: a fault, or a path broke; 2: wrong usage.

use std::process::ExitCode;

use clap::Parser;
use corbel_initiator::blocking::now;
use corbel_initiator::identity::Identity;
use corbel_proto::aoe::initiator::Operation as AoeOperation;
use corbel_proto::ata::Identify;
use corbel_tests::checker::{Action, Command, Content, Fault, History, stamp};
use corbel_tests::drive::{AnyError, AoePlace, Disk, IscsiPlace, Operation, PATIENCE, Places, end};
use corbel_tests::rng::Rng;

/// How long AoE clients wait before they send a frame again.
const REPEAT_AFTER: corbel_proto::time::Duration = corbel_proto::time::Duration::from_secs(5);

/// Bytes in a block.
const BLOCK_BYTES: usize = 512;

#[derive(Debug, Parser)]
#[command(about = "Overlapping I/O on one export over AoE and iSCSI, judged by a checker")]
struct Arguments {
    #[command(flatten)]
    places: Places,
    /// Clients of each protocol.
    #[arg(long, default_value_t = 3)]
    clients: u32,
    /// Commands each client has under way.
    #[arg(long, default_value_t = 4)]
    depth: usize,
    /// Blocks of 512 bytes that all fight for.
    #[arg(long, default_value_t = 24)]
    blocks: u64,
    /// First of these blocks.
    #[arg(long, default_value_t = 500)]
    first: u64,
    /// Commands of one client in one epoch.
    #[arg(long, default_value_t = 60)]
    commands: u64,
    /// Epochs.
    #[arg(long, default_value_t = 200)]
    epochs: u64,
    /// Percent of AoE frames sent twice. The second copy of a write is a write again: now and then
    /// one is executed after a newer write over iSCSI, which the checker rightly finds.
    #[arg(long, default_value_t = 0)]
    duplicates: u8,
    /// Decides which commands are sent.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

struct Client {
    number: u32,
    disk: Box<dyn Disk>,
    rng: Rng,
    /// Writes so far, for their numbers.
    writes: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = run(&arguments).map(|summary| println!("{summary}"));
    end("cross-protocol", done.map_err(|error| format!("{error}; seed {}", arguments.seed)))
}

fn run(arguments: &Arguments) -> Result<String, AnyError> {
    let place = arguments.places.iscsi();
    compare_identity(&place, &arguments.places.aoe)?;
    let mut clients = connect(arguments, &place)?;
    let mut contents = prepare(arguments, &mut clients)?;
    let (mut commands, mut longest, mut unjudged) = (0, 0, 0);
    for epoch in 0..arguments.epochs {
        let mut history = History::starting_with(&contents).map_err(told)?;
        let mut repeated = false;
        for command in perform(arguments, &mut clients)? {
            let took = command.ended.map_or(0, |end| end - command.began);
            repeated |= command.client > 100 && u128::from(took) >= REPEAT_AFTER.as_nanos();
            longest = longest.max(took);
            history.push(command);
        }
        let reader = usize::try_from(epoch)? % clients.len();
        contents = read_back(arguments, &mut clients[reader], &mut history)?;
        commands += history.commands().len();
        if repeated {
            // A frame was lost on the way and sent again: both copies may have been executed,
            // seconds apart, and no server could know. Such an epoch proves nothing.
            unjudged += 1;
            continue;
        }
        history.check().map_err(|fault| format!("epoch {epoch}: {fault}"))?;
    }
    if unjudged * 10 > arguments.epochs {
        return Err(format!("{unjudged} epochs lost AoE frames; too few are left to judge").into());
    }
    let Arguments { clients, epochs, duplicates, .. } = arguments;
    Ok(format!(
        "{commands} commands of {clients} + {clients} clients in {epochs} epochs, {unjudged} not \
         judged: one order explains the others; {duplicates} % of AoE frames were sent twice; \
         slowest command {} ms",
        longest / 1_000_000
    ))
}

fn told(fault: Fault) -> String {
    fault.to_string()
}

/// Serial, world-wide name and size agree.
fn compare_identity(iscsi: &IscsiPlace, aoe: &AoePlace) -> Result<(), AnyError> {
    let mut disk = iscsi.connect(0)?;
    let lun = disk.lun();
    let scsi = corbel_initiator::discover::identify_lun(disk.session(), lun, PATIENCE)?;
    let block = aoe.connect(0)?.client().run(AoeOperation::Identify)?;
    let ata = Identity::from_ata(&Identify::parse(&block)?);
    println!("iSCSI: {scsi:?}\nAoE:   {ata:?}");
    if !scsi.same_device(&ata) || scsi.serial != ata.serial {
        return Err("the device does not say the same of itself over both protocols".into());
    }
    Ok(())
}

fn connect(arguments: &Arguments, place: &IscsiPlace) -> Result<Vec<Client>, AnyError> {
    let mut seeds = Rng::new(arguments.seed);
    let mut clients = Vec::new();
    for number in 1..=arguments.clients {
        let disk: Box<dyn Disk> = Box::new(place.connect(number)?);
        clients.push(Client { number, disk, rng: seeds.fork(), writes: 0 });
        let mut disk = arguments.places.aoe.connect(number)?;
        disk.client().duplicate_percent = arguments.duplicates;
        disk.client().patience = REPEAT_AFTER;
        let number = number + 100;
        clients.push(Client { number, disk: Box::new(disk), rng: seeds.fork(), writes: 0 });
    }
    Ok(clients)
}

/// Writes every block once, so that the first epoch has something to lose.
fn prepare(arguments: &Arguments, clients: &mut [Client]) -> Result<Vec<Content>, AnyError> {
    let client = &mut clients[0];
    if client.disk.blocks()? < arguments.first + arguments.blocks {
        return Err("the device is too small for --first and --blocks".into());
    }
    let id = u64::MAX;
    for block in 0..arguments.blocks {
        let data = stamp::filled(1, BLOCK_BYTES, id, block);
        client.disk.run(Operation::Write { first: arguments.first + block, data })?;
    }
    Ok(vec![Content::Of(id); usize::try_from(arguments.blocks)?])
}

/// One epoch: all clients at once. Blocks are counted from `--first`.
fn perform(arguments: &Arguments, clients: &mut [Client]) -> Result<Vec<Command>, AnyError> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(move || client.epoch(arguments))).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a client panicked")??);
        }
        Ok(all)
    })
}

impl Client {
    fn epoch(&mut self, arguments: &Arguments) -> Result<Vec<Command>, AnyError> {
        let mut pending: Vec<Option<Command>> = Vec::new();
        let (mut ended, mut open) = (Vec::new(), 0);
        while ended.len() < usize::try_from(arguments.commands)? {
            while open < arguments.depth && (pending.len() as u64) < arguments.commands {
                let command = self.start(arguments, pending.len() as u64);
                pending.push(Some(command));
                open += 1;
            }
            let end = self.disk.next(now() + PATIENCE)?.ok_or("a command hangs")?;
            let moment = now().as_nanos();
            let data = end.result.map_err(|why| format!("client {}: {why}", self.number))?;
            let slot = pending.get_mut(usize::try_from(end.id)?);
            let mut command = slot.and_then(Option::take).ok_or("a command ended twice")?;
            command.ended = Some(moment);
            if let Action::Read(seen) = &mut command.action {
                *seen = stamp::read_all(&data, BLOCK_BYTES, command.blocks.start);
            }
            ended.push(command);
            open -= 1;
        }
        Ok(ended)
    }

    fn start(&mut self, arguments: &Arguments, id: u64) -> Command {
        let most = u64::from(self.disk.blocks_max()).min(arguments.blocks).min(8);
        let blocks = 1 + self.rng.below(most);
        let first = self.rng.below(arguments.blocks - blocks + 1);
        let range = first..first + blocks;
        let action = if self.rng.percent(50) {
            self.writes += 1;
            Action::Write(u64::from(self.number) << 40 | self.writes)
        } else {
            let len = usize::try_from(blocks).expect("at most eight");
            Action::Read(vec![Content::Broken; len])
        };
        let operation = match &action {
            Action::Write(id) => Operation::Write {
                first: arguments.first + first,
                data: stamp::filled(blocks, BLOCK_BYTES, *id, first),
            },
            Action::Read(_) => Operation::Read {
                first: arguments.first + first,
                blocks: u32::try_from(blocks).expect("at most eight"),
            },
        };
        let began = now().as_nanos();
        self.disk.submit(id, operation);
        Command { client: self.number, blocks: range, began, ended: None, action }
    }
}

/// Reads every block when nobody writes: part of the epoch, and the start of the next.
fn read_back(
    arguments: &Arguments,
    client: &mut Client,
    history: &mut History,
) -> Result<Vec<Content>, AnyError> {
    let mut contents = Vec::new();
    for block in 0..arguments.blocks {
        let began = now().as_nanos();
        let read = Operation::Read { first: arguments.first + block, blocks: 1 };
        let data = client.disk.run(read)?;
        let seen = stamp::read_all(&data, BLOCK_BYTES, block);
        contents.extend(&seen);
        history.push(Command {
            client: client.number,
            blocks: block..block + 1,
            began,
            ended: Some(now().as_nanos()),
            action: Action::Read(seen),
        });
    }
    Ok(contents)
}
