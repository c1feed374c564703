import signal
import jobs  # of yours: take() waits for a job, and returns None after a while
import prefork

wanted = True

def stop(*_):
    global wanted
    wanted = False

def consume():
    signal.signal(signal.SIGTERM, stop)
    prefork.ready()
    while wanted:
        prefork.watchdog()
        job = jobs.take(timeout=1)
        if job:
            prefork.status(f"works on {job.name}")
            job.run()
