//! Builds the goroutines of a dump: each block's frames are gathered in buffers that are used again, and become a [`Stack`] only
//! when no goroutine before had the same functions and places. Ten thousand parked workers cost one stack.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use crate::frame::{Function, Place};
use crate::limits::{ARGS_BYTES_MAX, FRAMES_MAX, GOROUTINES_MAX, STACK_FRAMES_MAX, STACKS_MAX};
use crate::text::{bounded, lossy};
use crate::{CreatedBy, Frame, Goroutine, Goroutines, Stack};

/// The goroutines found so far, and the block that is being read.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    pub(crate) goroutines: Goroutines,
    /// A bound made a goroutine go.
    pub(crate) overflow: bool,
    index: Index,
    frames_kept: usize,
    block: Block,
}

/// Stacks by the hash of their text. The hash is keyed, and equality is checked, so that no text can make stacks fall together.
#[derive(Debug, Default)]
struct Index {
    by_hash: HashMap<u64, usize>,
    state: RandomState,
}

/// One goroutine block as ranges into its buffers.
#[derive(Debug, Default)]
struct Block {
    goroutine: Option<Goroutine>,
    /// Function and file names with their lengths and lines: what makes two stacks the same.
    key: Vec<u8>,
    args: Vec<u8>,
    frames: Vec<RawFrame>,
    /// The function of a frame whose place has not been read.
    open: Option<Open>,
    created_by: Option<(RawFrame, Option<u64>)>,
    elided: Option<u32>,
    unavailable: bool,
}

#[derive(Clone, Debug, Default)]
struct RawFrame {
    func: Range<usize>,
    file: Range<usize>,
    args: Range<usize>,
    line: u32,
    offset: Option<u64>,
    pc: Option<u64>,
}

#[derive(Debug)]
enum Open {
    Frame(RawFrame),
    CreatedBy(RawFrame, Option<u64>),
}

impl Builder {
    /// Starts the block of `goroutine`; the one before is kept.
    pub(crate) fn start(&mut self, goroutine: Goroutine) {
        self.end();
        self.block.goroutine = Some(goroutine);
    }

    /// Whether a block is being read.
    pub(crate) fn in_block(&self) -> bool {
        self.block.goroutine.is_some()
    }

    /// Whether the next line of the block must be a place.
    pub(crate) fn awaits_place(&self) -> bool {
        self.block.open.is_some()
    }

    /// Goroutines so far, with the one that is being read.
    pub(crate) fn count(&self) -> u64 {
        self.goroutines.total().saturating_add(u64::from(self.in_block()))
    }

    pub(crate) fn function(&mut self, function: Function<'_>) {
        self.block.close_frame(None);
        self.block.open(function.name, function.args);
    }

    /// The line before was only a bare word; a C frame's place shows that it was a function.
    pub(crate) fn cgo_frame(&mut self, name: &[u8], place: &Place<'_>) {
        self.block.close_frame(None);
        self.block.open(name, &[]);
        self.block.close_frame(Some(place));
    }

    pub(crate) fn created_by(&mut self, name: &[u8], creator: Option<u64>) {
        self.block.close_frame(None);
        let func = self.block.push_key(name);
        self.block.open = Some(Open::CreatedBy(RawFrame { func, ..RawFrame::default() }, creator));
    }

    pub(crate) fn place(&mut self, place: &Place<'_>) {
        self.block.close_frame(Some(place));
    }

    /// Whether the creator's line has been read, so that only a blank line or another goroutine can follow.
    pub(crate) fn block_is_over(&self) -> bool {
        self.block.created_by.is_some() && self.block.open.is_none()
    }

    pub(crate) fn elided(&mut self, count: u32) {
        self.block.close_frame(None);
        self.block.elided = Some(count);
    }

    pub(crate) fn unavailable(&mut self) {
        self.block.unavailable = true;
    }

    /// Ends the block, if one is being read.
    pub(crate) fn end(&mut self) {
        self.block.close_frame(None);
        let Some(mut goroutine) = self.block.goroutine.take() else {
            self.block.clear();
            return;
        };
        goroutine.creator = self.block.created_by.as_ref().and_then(|(_, creator)| *creator);
        let kept = if self.goroutines.list.len() < GOROUTINES_MAX { self.intern() } else { None };
        match kept {
            Some(stack) => {
                goroutine.stack = stack;
                self.goroutines.list.push(goroutine);
            }
            None => {
                self.goroutines.dropped = self.goroutines.dropped.saturating_add(1);
                self.overflow = true;
            }
        }
        self.block.clear();
    }

    /// The name of the innermost function of the block that is being read.
    pub(crate) fn innermost(&self) -> Option<&[u8]> {
        let frame = self.block.frames.first()?;
        self.block.key.get(frame.func.clone())
    }

    fn intern(&mut self) -> Option<usize> {
        self.block.finish_key();
        let mut hash = self.index.state.hash_one(self.block.key.as_slice());
        loop {
            match self.index.by_hash.get(&hash) {
                Some(&stack) if self.goroutines.stacks.get(stack).is_some_and(|known| self.block.is(known)) => {
                    return Some(stack);
                }
                Some(_) => hash = hash.wrapping_add(1),
                None => break,
            }
        }
        let frames = self.frames_kept.saturating_add(self.block.frames.len());
        if self.goroutines.stacks.len() >= STACKS_MAX || frames > FRAMES_MAX {
            return None;
        }
        self.frames_kept = frames;
        let stack = self.goroutines.stacks.len();
        self.goroutines.stacks.push(self.block.stack());
        self.index.by_hash.insert(hash, stack);
        Some(stack)
    }
}

impl Block {
    fn push_key(&mut self, text: &[u8]) -> Range<usize> {
        let start = self.key.len();
        self.key.extend_from_slice(text);
        start..self.key.len()
    }

    fn open(&mut self, name: &[u8], args: &[u8]) {
        if self.frames.len() >= STACK_FRAMES_MAX {
            self.elided.get_or_insert(0);
            self.open = None;
            return;
        }
        let func = self.push_key(name);
        let start = self.args.len();
        self.args.extend_from_slice(args.get(..ARGS_BYTES_MAX).unwrap_or(args));
        self.open = Some(Open::Frame(RawFrame { func, args: start..self.args.len(), ..RawFrame::default() }));
    }

    /// Completes what waits for its place; without a place it keeps its name only.
    fn close_frame(&mut self, place: Option<&Place<'_>>) {
        let Some(open) = self.open.take() else { return };
        let fill = |block: &mut Self, mut frame: RawFrame| {
            if let Some(place) = place {
                frame.file = block.push_key(place.file);
                frame.line = place.line;
                frame.offset = place.offset;
                frame.pc = place.pc;
            } else {
                frame.file = block.key.len()..block.key.len();
            }
            block.key.extend_from_slice(&frame.line.to_le_bytes());
            block.key.push(0);
            frame
        };
        match open {
            Open::Frame(frame) => {
                let frame = fill(self, frame);
                self.frames.push(frame);
            }
            Open::CreatedBy(frame, creator) => {
                let frame = fill(self, frame);
                self.created_by = Some((frame, creator));
            }
        }
    }

    /// What the key still lacks: where its parts end, and the trailers.
    fn finish_key(&mut self) {
        let frames = self.frames.iter().chain(self.created_by.as_ref().map(|(frame, _)| frame));
        let mut shape = 0_usize;
        for frame in frames {
            shape = shape.wrapping_mul(31).wrapping_add(frame.func.end).wrapping_mul(31).wrapping_add(frame.file.end);
        }
        self.key.extend_from_slice(&shape.to_le_bytes());
        self.key.extend_from_slice(&self.elided.unwrap_or(u32::MAX).to_le_bytes());
        self.key.extend_from_slice(&[u8::from(self.unavailable), u8::from(self.created_by.is_some())]);
    }

    fn text(&self, range: &Range<usize>) -> &[u8] {
        self.key.get(range.clone()).unwrap_or_default()
    }

    /// Whether `stack` was made of the same functions and places. Names that are no UTF-8 never are: each such block is a stack of its own.
    fn is(&self, stack: &Stack) -> bool {
        let same = |raw: &RawFrame, func: &str, file: &str, line: u32| {
            raw.line == line && self.text(&raw.func) == func.as_bytes() && self.text(&raw.file) == file.as_bytes()
        };
        self.frames.len() == stack.frames.len()
            && self.elided == stack.elided_frames
            && self.unavailable == stack.unavailable
            && self.frames.iter().zip(&stack.frames).all(|(raw, frame)| same(raw, &frame.func, &frame.file, frame.line))
            && match (&self.created_by, &stack.created_by) {
                (None, None) => true,
                (Some((raw, _)), Some(known)) => same(raw, &known.func, &known.file, known.line),
                _ => false,
            }
    }

    fn stack(&self) -> Stack {
        let frame = |raw: &RawFrame| Frame {
            func: lossy(self.text(&raw.func)),
            file: lossy(self.text(&raw.file)),
            line: raw.line,
            args: bounded(self.args.get(raw.args.clone()).unwrap_or_default(), ARGS_BYTES_MAX),
            offset: raw.offset,
            pc: raw.pc,
        };
        Stack {
            frames: self.frames.iter().map(frame).collect(),
            created_by: self.created_by.as_ref().map(|(raw, creator)| CreatedBy {
                func: lossy(self.text(&raw.func)),
                file: lossy(self.text(&raw.file)),
                line: raw.line,
                goroutine: *creator,
            }),
            elided_frames: self.elided,
            unavailable: self.unavailable,
        }
    }

    fn clear(&mut self) {
        self.goroutine = None;
        self.key.clear();
        self.args.clear();
        self.frames.clear();
        self.open = None;
        self.created_by = None;
        self.elided = None;
        self.unavailable = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    fn block(builder: &mut Builder, id: u64, funcs: &[&str]) {
        builder.start(Goroutine { id, ..Goroutine::default() });
        for func in funcs {
            builder.function(frame::function(format!("{func}({id:#x})").as_bytes()).unwrap());
            builder.place(&frame::place(b"\t/src/main.go:7 +0x1").unwrap());
        }
    }

    #[test]
    fn equal_stacks_are_one() {
        let mut builder = Builder::default();
        for id in 0..1000 {
            block(&mut builder, id, if id % 3 == 0 { &["main.a", "main.b"] } else { &["main.a", "main.c"] });
        }
        builder.end();
        assert_eq!((builder.goroutines.list.len(), builder.goroutines.stacks.len()), (1000, 2));
        assert_eq!(builder.goroutines.stacks[0].frames[0].args, "(0x0)");
        assert_eq!(builder.goroutines.list[4].stack, 1);
    }

    #[test]
    fn stacks_that_differ_by_their_seams_are_two() {
        let mut builder = Builder::default();
        for (file, func) in [("a.go", "main.bc"), ("ca.go", "main.b")] {
            builder.start(Goroutine::default());
            builder.function(Function { name: func.as_bytes(), args: b"()" });
            builder.place(&frame::place(format!("\t{file}:1").as_bytes()).unwrap());
        }
        builder.end();
        assert_eq!(builder.goroutines.stacks.len(), 2);
    }

    #[test]
    fn bounds_at_their_edges() {
        let mut builder = Builder::default();
        for id in 0..=STACKS_MAX {
            block(&mut builder, 0, &[&format!("main.f{id}")]);
        }
        assert!(!builder.overflow);
        builder.end();
        assert!(builder.overflow);
        assert_eq!((builder.goroutines.stacks.len(), builder.goroutines.dropped), (STACKS_MAX, 1));
        block(&mut builder, 0, &["main.f0"]);
        builder.end();
        assert_eq!(
            (builder.goroutines.list.len(), builder.goroutines.total()),
            (STACKS_MAX + 1, STACKS_MAX as u64 + 2)
        );

        let mut builder = Builder::default();
        for id in 0..=GOROUTINES_MAX {
            assert!(!builder.overflow);
            block(&mut builder, id as u64, &["main.f"]);
        }
        builder.end();
        assert_eq!(
            (builder.goroutines.list.len(), builder.goroutines.dropped, builder.overflow),
            (GOROUTINES_MAX, 1, true)
        );

        let mut builder = Builder::default();
        block(&mut builder, 0, &vec!["main.f"; STACK_FRAMES_MAX]);
        block(&mut builder, 0, &vec!["main.f"; STACK_FRAMES_MAX + 1]);
        builder.end();
        let [first, second] = builder.goroutines.stacks.as_slice() else { panic!("two stacks") };
        assert_eq!((first.frames.len(), first.elided_frames), (STACK_FRAMES_MAX, None));
        assert_eq!((second.frames.len(), second.elided_frames), (STACK_FRAMES_MAX, Some(0)));

        let mut builder = Builder::default();
        let full = FRAMES_MAX / STACK_FRAMES_MAX;
        for id in 0..=full {
            block(&mut builder, 0, &vec![format!("main.f{id}").as_str(); STACK_FRAMES_MAX]);
        }
        assert!(!builder.overflow);
        builder.end();
        assert_eq!((builder.goroutines.stacks.len(), builder.goroutines.dropped), (full, 1));
    }

    #[test]
    fn a_function_without_place_is_kept() {
        let mut builder = Builder::default();
        builder.start(Goroutine::default());
        builder.function(Function { name: b"main.torn", args: b"()" });
        block(&mut builder, 1, &["main.f"]);
        builder.end();
        let frame = &builder.goroutines.stacks[0].frames[0];
        assert_eq!((frame.func.as_str(), frame.file.as_str(), frame.line), ("main.torn", "", 0));
    }
}
