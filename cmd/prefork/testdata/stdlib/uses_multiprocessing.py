# SPDX-License-Identifier: AGPL-3.0-or-later
import multiprocessing
import multiprocessing.managers
import multiprocessing.shared_memory
import os


def square(n):
    return n * n


def produce(queue, event, value):
    event.wait()
    with value.get_lock():
        value.value += 1
    queue.put(multiprocessing.current_process().name)


def fail():
    raise SystemExit(9)


def main():
    print(multiprocessing.current_process().name, multiprocessing.parent_process())
    for method in "fork", "spawn", "forkserver":
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            print(method, pool.map(square, range(5)))
        queue, event, value = context.Queue(), context.Event(), context.Value("i", 40)
        workers = [context.Process(target=produce, args=(queue, event, value), name=f"p{i}") for i in range(2)]
        for w in workers:
            w.start()
        event.set()
        print(sorted(queue.get() for _ in workers), [w.join() or w.exitcode for w in workers], value.value)
        w = context.Process(target=fail)
        w.start()
        w.join()
        print(w.exitcode)
        ours, theirs = context.Pipe()
        theirs.send({"a": 1})
        print(ours.recv())
    with multiprocessing.Manager() as manager:
        shared = manager.dict(a=1)
        shared["b"] = 2
        print(dict(shared))
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=64)
    memory.buf[:4] = b"left"
    print(bytes(memory.buf[:4]), os.path.exists("/dev/shm/" + memory.name))
    memory.close()
    memory.unlink()
    left = multiprocessing.shared_memory.SharedMemory(create=True, size=64)
    print("left behind", left.size >= 64)  # for the resource tracker
    multiprocessing.get_context("fork").Process(target=print, args=("joined at the end",)).start()


if __name__ == "__main__":
    main()
