"""A pool of native threads that take tiles of a kernel. Written in LLVM code, so that it needs no compiler.

``jacana_parallel(task, buffers, count)`` runs ``task(buffers, k)`` for every k below ``count``. Workers and the caller
take the next k from a counter until there is none; which thread computes a tile has no influence on the result.

* A region is opened and closed under a mutex. A worker that wakes up late finds it closed and goes back to sleep: the
  caller waits for those that work, never for those that sleep.
* One region at a time. A call that comes while another thread has the pool runs its tiles by itself.
* The workers start at the first region. A forked child has none; it is told so (``os.register_at_fork``) and starts
  its own.
* After a region workers look out for the next one for some microseconds before they sleep.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING, Any

import llvmlite.binding as llvm

from ..threads import on_change

if TYPE_CHECKING:
    from .engine import Machine

PARALLEL = "jacana_parallel"
SPIN = 2000  # looks at the sequence number before a worker sleeps

_SERIAL = """
define void @{serial}(ptr %task, ptr %buffers, i64 %count) {{
entry:
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void %task(ptr %buffers, i64 %k)
  %next = add i64 %k, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""

# The state of a pool, by offsets: 0 task, 8 buffers, 64 next tile, 128 count, 136 open, 144 active, 152 sequence,
# 160 stop, 192 mutex, 256 condition. Mutex and condition are at most 64 bytes wherever there are POSIX threads.
_POOL = """
@pool = internal global ptr null
@busy = internal global i64 0
@threads = internal global i64 1

declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()
declare ptr @calloc(i64, i64)
{declare_pause}

define internal void @take(ptr %s) {{
entry:
  %next = getelementptr i8, ptr %s, i64 64
  %count_at = getelementptr i8, ptr %s, i64 128
  %buffers_at = getelementptr i8, ptr %s, i64 8
  %task = load ptr, ptr %s
  %buffers = load ptr, ptr %buffers_at
  %count = load i64, ptr %count_at
  br label %loop
loop:
  %k = atomicrmw add ptr %next, i64 1 acq_rel
  %mine = icmp slt i64 %k, %count
  br i1 %mine, label %work, label %done
work:
  call void %task(ptr %buffers, i64 %k)
  br label %loop
done:
  ret void
}}

define internal ptr @worker(ptr %s) {{
entry:
  %open_at = getelementptr i8, ptr %s, i64 136
  %active = getelementptr i8, ptr %s, i64 144
  %sequence = getelementptr i8, ptr %s, i64 152
  %stop_at = getelementptr i8, ptr %s, i64 160
  %mutex = getelementptr i8, ptr %s, i64 192
  %condition = getelementptr i8, ptr %s, i64 256
  br label %again
again:
  %seen = phi i64 [ 0, %entry ], [ %now, %closed ], [ %now, %finished ]
  br label %spin
spin:
  %n = phi i64 [ 0, %again ], [ %n1, %spin ]
  {pause}
  %look = load atomic i64, ptr %sequence acquire, align 8
  %same = icmp eq i64 %look, %seen
  %n1 = add i64 %n, 1
  %early = icmp slt i64 %n1, {spin}
  %on = and i1 %same, %early
  br i1 %on, label %spin, label %sleep
sleep:
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  br label %check
check:
  %now = load atomic i64, ptr %sequence acquire, align 8
  %stop = load i64, ptr %stop_at
  %old = icmp eq i64 %now, %seen
  %going = icmp eq i64 %stop, 0
  %idle = and i1 %old, %going
  br i1 %idle, label %wait, label %woken
wait:
  %w = call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %check
woken:
  br i1 %going, label %join, label %end
join:
  %open = load i64, ptr %open_at
  %is_open = icmp ne i64 %open, 0
  br i1 %is_open, label %enter, label %closed
closed:
  %u0 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %again
enter:
  %a = atomicrmw add ptr %active, i64 1 acq_rel
  %u1 = call i32 @pthread_mutex_unlock(ptr %mutex)
  call void @take(ptr %s)
  br label %finished
finished:
  %b = atomicrmw sub ptr %active, i64 1 acq_rel
  br label %again
end:
  %u2 = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret ptr null
}}

define internal ptr @start(i64 %workers) {{
entry:
  %handle = alloca ptr
  %s = call ptr @calloc(i64 1, i64 512)
  %none = icmp eq ptr %s, null
  br i1 %none, label %done, label %make
make:
  %mutex = getelementptr i8, ptr %s, i64 192
  %condition = getelementptr i8, ptr %s, i64 256
  %m = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %c = call i32 @pthread_cond_init(ptr %condition, ptr null)
  br label %loop
loop:
  %k = phi i64 [ 0, %make ], [ %k1, %next ]
  %r = call i32 @pthread_create(ptr %handle, ptr null, ptr @worker, ptr %s)
  %made = icmp eq i32 %r, 0
  br i1 %made, label %detach, label %next
detach:
  %h = load ptr, ptr %handle
  %d = call i32 @pthread_detach(ptr %h)
  br label %next
next:
  %k1 = add i64 %k, 1
  %more = icmp slt i64 %k1, %workers
  br i1 %more, label %loop, label %done
done:
  ret ptr %s
}}

define void @jacana_parallel(ptr %task, ptr %buffers, i64 %count) {{
entry:
  %threads = load atomic i64, ptr @threads acquire, align 8
  %single = icmp slt i64 %threads, 2
  %few = icmp slt i64 %count, 2
  %alone = or i1 %single, %few
  br i1 %alone, label %serial, label %try
try:
  %got = cmpxchg ptr @busy, i64 0, i64 1 acq_rel acquire
  %free = extractvalue {{ i64, i1 }} %got, 1
  br i1 %free, label %mine, label %serial
serial:
  call void @serial(ptr %task, ptr %buffers, i64 %count)
  ret void
mine:
  %have = load ptr, ptr @pool
  %fresh = icmp eq ptr %have, null
  br i1 %fresh, label %begin, label %ready
begin:
  %workers = sub i64 %threads, 1
  %made = call ptr @start(i64 %workers)
  store ptr %made, ptr @pool
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %give_up, label %ready
give_up:
  store atomic i64 0, ptr @busy release, align 8
  br label %serial
ready:
  %s = phi ptr [ %have, %mine ], [ %made, %begin ]
  %buffers_at = getelementptr i8, ptr %s, i64 8
  %next = getelementptr i8, ptr %s, i64 64
  %count_at = getelementptr i8, ptr %s, i64 128
  %open_at = getelementptr i8, ptr %s, i64 136
  %active = getelementptr i8, ptr %s, i64 144
  %sequence = getelementptr i8, ptr %s, i64 152
  %mutex = getelementptr i8, ptr %s, i64 192
  %condition = getelementptr i8, ptr %s, i64 256
  %l0 = call i32 @pthread_mutex_lock(ptr %mutex)
  store ptr %task, ptr %s
  store ptr %buffers, ptr %buffers_at
  store atomic i64 0, ptr %next release, align 8
  store i64 %count, ptr %count_at
  store i64 1, ptr %open_at
  %q = atomicrmw add ptr %sequence, i64 1 acq_rel
  %w = call i32 @pthread_cond_broadcast(ptr %condition)
  %u0 = call i32 @pthread_mutex_unlock(ptr %mutex)
  call void @take(ptr %s)
  %l1 = call i32 @pthread_mutex_lock(ptr %mutex)
  store i64 0, ptr %open_at
  %u1 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %wait
wait:
  %n = phi i64 [ 0, %ready ], [ %n1, %on ]
  %left = load atomic i64, ptr %active acquire, align 8
  %done = icmp eq i64 %left, 0
  br i1 %done, label %finished, label %more
more:
  {pause}
  %n1 = add i64 %n, 1
  %low = and i64 %n1, 255
  %long = icmp eq i64 %low, 0
  br i1 %long, label %yield, label %on
yield:
  %y = call i32 @sched_yield()
  br label %on
on:
  br label %wait
finished:
  store atomic i64 0, ptr @busy release, align 8
  ret void
}}

define void @jacana_set_threads(i64 %number) {{
entry:
  br label %try
try:
  %got = cmpxchg ptr @busy, i64 0, i64 1 acq_rel acquire
  %free = extractvalue {{ i64, i1 }} %got, 1
  br i1 %free, label %mine, label %yield
yield:
  %y = call i32 @sched_yield()
  br label %try
mine:
  store atomic i64 %number, ptr @threads release, align 8
  %s = load ptr, ptr @pool
  store ptr null, ptr @pool
  %none = icmp eq ptr %s, null
  br i1 %none, label %done, label %stop
stop:
  %stop_at = getelementptr i8, ptr %s, i64 160
  %mutex = getelementptr i8, ptr %s, i64 192
  %condition = getelementptr i8, ptr %s, i64 256
  %sequence = getelementptr i8, ptr %s, i64 152
  %l = call i32 @pthread_mutex_lock(ptr %mutex)
  store i64 1, ptr %stop_at
  %q = atomicrmw add ptr %sequence, i64 1 acq_rel
  %w = call i32 @pthread_cond_broadcast(ptr %condition)
  %u = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %done
done:
  store atomic i64 0, ptr @busy release, align 8
  ret void
}}

define void @jacana_forked() {{
  store ptr null, ptr @pool
  store atomic i64 0, ptr @busy release, align 8
  ret void
}}
"""

_IMPORTS = (
    "pthread_create", "pthread_detach", "pthread_mutex_init", "pthread_mutex_lock", "pthread_mutex_unlock",
    "pthread_cond_init", "pthread_cond_wait", "pthread_cond_broadcast", "sched_yield", "calloc",
)  # fmt: skip

_address: int | None = None
_keep: list[Any] = []


def parallel_address(machine: Machine) -> int:
    """Where ``jacana_parallel`` is; the pool is compiled when it is first asked for."""
    global _address
    if _address is None:
        _address = _compile(machine)
    return _address


def _compile(machine: Machine) -> int:
    text = f'target triple = "{machine.triple}"\n'
    if sys.platform == "win32":
        # Tiles run one after another where there are no POSIX threads.
        return _link(machine, text + _SERIAL.format(serial=PARALLEL), (), (PARALLEL,))[PARALLEL]
    pause, declare = "", ""
    if machine.triple.startswith(("x86_64", "i686")):
        pause, declare = "call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"
    elif machine.triple.startswith(("aarch64", "arm64")):
        pause, declare = "call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"
    text += _SERIAL.format(serial="serial") + _POOL.format(pause=pause, declare_pause=declare, spin=SPIN)
    names = (PARALLEL, "jacana_set_threads", "jacana_forked")
    found = _link(machine, text, _IMPORTS, names)
    set_threads = ctypes.CFUNCTYPE(None, ctypes.c_int64)(found["jacana_set_threads"])
    forked = ctypes.CFUNCTYPE(None)(found["jacana_forked"])
    _keep.extend((set_threads, forked))
    on_change(set_threads)
    os.register_at_fork(after_in_child=forked)
    return found[PARALLEL]


def _link(machine: Machine, text: str, imports: tuple[str, ...], names: tuple[str, ...]) -> dict[str, int]:
    module = llvm.parse_assembly(text)
    module.verify()
    library = llvm.JITLibraryBuilder().add_object_img(machine.target_machine.emit_object(module))
    process = ctypes.CDLL(None) if imports else None
    for symbol in imports:
        library.import_symbol(symbol, ctypes.cast(getattr(process, symbol), ctypes.c_void_p).value or 0)
    for name in names:
        library.export_symbol(name)
    tracker = library.link(machine.jit, "jacana_threads")
    _keep.append(tracker)
    return {name: tracker[name] for name in names}
