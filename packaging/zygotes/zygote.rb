# frozen_string_literal: true
# SPDX-License-Identifier: 0BSD
#
# A zygote for prefork: it loads a floor of Ruby once, and forks workers from it.
#
#   [floor]
#   zygote  = ["ruby", "/usr/share/prefork/zygote.rb"]
#   path    = ["/srv/shop"]           put before $LOAD_PATH
#   preload = ["bundler/setup", "app"]  what is required, once
#
# An entry, setup, warm and after_fork are "App::Web.serve", a method of a constant,
# "serve", a method of the main object, or either after "app/web:", which is required
# first. The protocol is prefork-zygote(7); that page says why it is done in this order.
# For Ruby 3.1 and later.

require "etc"
require "json"
require "socket"

# What a worker can ask.
module Prefork
  class << self
    attr_reader :fleet, :worker, :slot, :index, :generation

    # The sockets that were handed down, by name.
    def sockets
      @sockets ||= (@listen || []).each_with_object({}) do |(name, fd), all|
        (all[name] ||= []) << open_socket(fd)
      end
    end

    # Descriptors that an earlier process of the slot has stored: [[name, number], ...].
    def stored = @stored || []

    def ready = notify("READY=1")
    def status(text) = notify("STATUS=#{text.to_s.tr("\n", " ")}")
    def watchdog = notify("WATCHDOG=1")

    # Sends what sd_notify(3) does. Says whether it could.
    def notify(text)
      path = ENV["NOTIFY_SOCKET"] or return false
      @notify ||= Socket.new(:UNIX, :DGRAM)
      @notify.sendmsg_nonblock(text, 0, Socket.sockaddr_un(path.sub(/\A@/, "\0")))
      true
    rescue SystemCallError, IO::WaitWritable
      false
    end

    private

    def open_socket(fd)
      socket = Socket.for_fd(fd)
      socket.autoclose = false # another object will stand for it
      address = socket.local_address
      return socket unless socket.getsockopt(:SOCKET, :ACCEPTCONN).bool && address.socktype == Socket::SOCK_STREAM

      (address.unix? ? UNIXServer : TCPServer).for_fd(fd)
    end
  end

  # The zygote. Its name for a worker that has not been told yet what it is: a spare.
  class Zygote
    PROTOCOL = "1"
    FORK = Process.method(:_fork) # before an import can put its hook there
    SMALL, LARGE, CONTROL = 4096, 1 << 18, 2048 # bytes of a message, and of its descriptors
    TEXT = 512 # bytes of a text that the master shows
    CGROUP = 128 # and the errno: the exit status of a middle process that cannot enter
    CHDIR, NICE, FDS, LIMITS, OOM_ADJUST, GROUP, USER, NO_NEW_PRIVS = 200, 201, 202, 205, 206, 216, 217, 227
    PER_PROCESS = %w[LISTEN_FDS LISTEN_FDNAMES LISTEN_PID LISTEN_PIDFDID WATCHDOG_USEC WATCHDOG_PID].freeze
    PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
    NOT_OURS = %w[EXIT KILL STOP SEGV BUS ILL FPE VTALRM].freeze # signals that are Ruby's

    # Why the floor cannot be used, or the worker cannot become what was ordered.
    class Broken < StandardError; end

    class Failure < StandardError
      attr_reader :status

      def initialize(status, text)
        super(text)
        @status = status
      end
    end

    # Exit handlers of the floor run when that ends, and in no worker.
    module ExitHandlers
      class << self
        attr_accessor :floor
      end

      def at_exit(&handler)
        floor = ExitHandlers.floor
        return super unless floor == $$

        super { handler.call if $$ == floor }
      end
    end

    def self.main
      zygote = new
      zygote.load
      zygote.serve # returns in workers only, what to run: nothing of this is around it
    end

    def initialize
      protocol, number = %w[PREFORK_ZYGOTE_PROTOCOL PREFORK_ZYGOTE_FD].map { |name| ENV.delete(name) }
      abort "zygote.rb: prefork starts this program: write it into floor.zygote" unless number
      @number = number.to_i
      @socket = Socket.for_fd(@number)
      (3..@number).each { |fd| io(fd).close_on_exec = true }
      broken("zygote.rb speaks protocol #{PROTOCOL}, and not #{protocol}") if protocol != PROTOCOL
      broken("ruby is #{RUBY_VERSION}; zygote.rb needs 3.1 or later") unless Process.respond_to?(:_fork)
      @floor = $$
      @master = @socket.getsockopt(:SOCKET, :PEERCRED).unpack("i").first
      @tasks, @given = tasks, descriptors
    end

    # Loads what the first message names.
    def load
      data, = receive(LARGE)
      exit!(0) if data.empty?
      name, @request = parse(data)
      broken("the first message was not floor but #{name[0, 20]}") if name != "floor"
      ExitHandlers.floor = $$
      [Kernel, Kernel.singleton_class].each { |place| place.prepend(ExitHandlers) }
      entitle(one(@request, "title"), "prefork-floor")
      $stdout.sync = $stderr.sync = true # a line is seen when it is printed
      before = [File.umask, Dir.pwd]
      all
      File.umask(before[0])
      Dir.chdir(before[1])
      leave_memory
      say("loaded", PROTOCOL)
    rescue Broken => e
      broken(e.message)
    end

    # Forks workers until the master has gone. Returns in a worker what is to be run.
    def serve
      loop do
        data, fds = receive(SMALL)
        exit if data.empty?
        name, id = data.split("\0", 2)
        broken("unknown message: #{data[0, 40].inspect}") unless name == "fork" && id&.match?(/\A\d+\z/)
        job, refusal = fork_worker(id, fds)
        return job if job

        say("refused", id, refusal[0].to_s, refusal[1]) if refusal
        fds.each(&:close)
      end
    end

    private

    def all
      $LOAD_PATH.unshift(*@request.fetch("path", []))
      names = @request.fetch("preload", [])
      names.each.with_index(1) do |name, i|
        attempt("requiring #{name}", " (#{i} of #{names.size})") { require name }
      end
      %w[setup warm].each do |key|
        name = one(@request, key)
        attempt("#{key} #{name}") { resolve(name).call } unless name.empty?
      end
      look_at_descriptors
      (Signal.list.keys - NOT_OURS).each do |name|
        trap(name, "DEFAULT")
      rescue ArgumentError, SystemCallError
        nil # it is reserved
      end
      require "fiddle" if one(@request, "prctl") == "1"
    end

    def attempt(what, more = "")
      say("progress", what + more)
      yield
    rescue Exception => e # also SystemExit: the floor is not complete
      exit!(1) if $$ != @floor # a copy that was forked must not become a zygote

      warn e.full_message(highlight: false)
      raise Broken, "#{what}: #{cause(e)}"
    else
      exit!(1) if $$ != @floor
      threads = extra_threads
      return unless threads

      raise Broken, "#{what} started #{threads}; set floor.threads = \"allow\" or start them in floor.after_fork"
    end

    # What workers share is looked at once, and put side by side.
    def leave_memory
      ObjectSpace.each_object(IO) { |io| io.flush unless io.closed? rescue nil }
      return Process.warmup if Process.respond_to?(:warmup)

      4.times { GC.start }
      GC.compact if GC.respond_to?(:compact)
    end

    def extra_threads
      return if one(@request, "threads") == "allow"

      found = Thread.list - [Thread.current]
      return "#{found.size} thread(s): #{found.map(&:inspect).join(", ")}" unless found.empty?

      "#{tasks - @tasks} native thread(s)" if tasks > @tasks
    end

    def tasks = Dir.children("/proc/self/task").size

    def look_at_descriptors
      return if one(@request, "fds") == "allow"

      left = (descriptors - @given).select { |_, target| target.match?(/\A(socket|pipe|anon_inode):/) }
      return if left.empty?

      raise Broken, "workers would share #{left.map { |fd, target| "fd #{fd} (#{target})" }.join(", ")}; " \
                    'set floor.fds = "allow" or open it in floor.after_fork'
    end

    def descriptors
      Dir.children("/proc/self/fd").filter_map do |fd|
        [fd.to_i, File.readlink("/proc/self/fd/#{fd}")]
      rescue Errno::ENOENT
        nil # that of the folder itself
      end
    end

    # Returns what a worker is to run, in the worker; or in the zygote nil, and an errno
    # and a text if there will be no worker.
    def fork_worker(id, fds)
      return nil, [Errno::EBADF::Errno, "the request has #{fds.size} descriptors"] unless [1, 2].include?(fds.size)

      threads = extra_threads
      return nil, [Errno::EBUSY::Errno, "the floor has #{threads}"] if threads

      reader, writer = IO.pipe
      child = FORK.call
      return worker(id, fds[0], middle(*fds), reader, writer) if child.zero?

      status = Process.wait2(child)[1].exitstatus
      reader.close
      writer.close # the worker reads end of file, and goes on
      # A middle process that was killed may have forked: the gate will tell.
      return nil if [nil, 0].include?(status)

      number = status % CGROUP
      [nil, [number, "#{status < CGROUP ? "fork" : "cgroup"}: #{SystemCallError.new(number).message}"]]
    rescue SystemCallError => e
      exit!(e.errno) if $$ != @floor
      [reader, writer].compact.each(&:close)
      [nil, [e.errno, "fork: #{e.message}"]]
    end

    # Is the process between zygote and worker. Returns its number, in the worker only.
    def middle(_gate, procs = nil)
      own = $$
      begin
        procs&.syswrite("0") # the writer (cgroups(7))
        procs&.close
      rescue SystemCallError => e
        exit!(CGROUP + e.errno)
      end
      exit!(0) if Process.fork # with the hooks of _fork, which thus run once
      own
    end

    def worker(id, gate, middle, reader, writer)
      be_born(id, gate, middle, reader, writer)
      data, fds = receive(SMALL)
      exit!(0) if data.empty? # the master has gone: no user code has run
      become(data, fds)
    rescue Failure => e
      fail_with(e.status, e.message)
    end

    def be_born(id, gate, middle, reader, writer)
      writer.close
      reader.read(1) # ends when the zygote has reaped the middle process
      reader.close
      1000.times { Process.ppid == middle ? sleep(0.001) : break } # if the zygote was killed meanwhile
      exit!(0) if Process.ppid != @master
      @socket.close
      @socket = gate
      Process.setsid
      entitle("prefork: spare [#{one(@request, "fleet")}] gen #{one(@request, "generation")}", "prefork-spare")
      say("hello", id)
    rescue SystemCallError
      exit!(0) # the master has gone
    end

    # Obeys the orders. Their order matters: rights are given up last.
    def become(data, fds)
      name, orders = parse(data)
      raise Failure.new(1, "unknown message at the gate: #{name[0, 20]}") if name != "go"

      if orders.key?("memfd")
        memfd = fds.shift or raise Failure.new(FDS, "the orders came without their memfd")
        orders = fields(memfd.pread(memfd.stat.size, 0).force_encoding(Encoding::UTF_8).split("\0"))
        memfd.close
      end
      @slot = one(orders, "slot")
      step(FDS, "placing the descriptors") { place(orders, fds) }
      account = find_user(one(orders, "user"))
      set_environment(orders, account)
      entitle(one(orders, "title"), one(orders, "comm"))
      given(orders, "oom_score_adjust") do |n|
        step(OOM_ADJUST, "oom_score_adjust #{n}") { File.write("/proc/self/oom_score_adj", n) }
      end
      set_limits(orders)
      given(orders, "nice") { |n| step(NICE, "nice #{n}") { Process.setpriority(Process::PRIO_PROCESS, 0, n.to_i) } }
      given(orders, "umask") { |mask| File.umask(mask.to_i(8)) }
      change_user(orders, account)
      given(orders, "dir") { |dir| step(CHDIR, "working directory #{dir}") { Dir.chdir(dir) } }
      restrict(orders)
      name_module(orders)
      job(orders)
    end

    # Puts the output at 1 and 2, sockets and stored at 3 and up; closes the rest.
    def place(orders, fds)
      outputs(orders).each do |number|
        put(fds.shift || raise(Failure.new(FDS, "output without a descriptor")), number)
      end
      names = handed_down(orders)
      raise Failure.new(FDS, "#{fds.size} descriptors came for #{names.size} names") if fds.size != names.size
      raise Failure.new(FDS, "the floor uses fd #{@number}; a restart makes room") if 3 + fds.size > @number

      fds.each.with_index(3) { |from, number| put(from, number) }
      (3 + fds.size...@number).each { |fd| IO.for_fd(fd).close }
    end

    # Is dup2(2): a plain object of Ruby's stands for each number meanwhile.
    def put(from, number)
      io(number).reopen(io(from.fileno))
      io(number).close_on_exec = false if number > 2
      from.close
    end

    def io(fd) = IO.for_fd(fd, autoclose: false)

    def set_environment(orders, account)
      names = handed_down(orders)
      new = {}
      new.update("HOME" => account.dir, "USER" => account.name, "LOGNAME" => account.name) if account
      new["SHELL"] = account.shell.empty? ? "/bin/sh" : account.shell if account
      orders.fetch("env", []).each { |text| text.partition("=").then { |name, _, value| new[name] = value } }
      unless names.empty?
        new.update("LISTEN_FDS" => names.size.to_s, "LISTEN_FDNAMES" => names.join(":"), "LISTEN_PID" => $$.to_s)
      end
      given(orders, "watchdog") { |n| new.update("WATCHDOG_USEC" => n, "WATCHDOG_PID" => $$.to_s) }
      (PER_PROCESS - new.keys).each { |name| ENV.delete(name) }
      new.each { |name, value| ENV[name] = value if ENV[name] != value } # each change costs memory
    end

    def set_limits(orders)
      orders.fetch("limit", []).each do |text|
        resource, *values = text.split(":")
        soft, hard = values.map { |v| v == "infinity" ? Process::RLIM_INFINITY : v.to_i }
        step(LIMITS, "resource limit #{resource}") { Process.setrlimit(resource.to_i, soft, hard) }
      end
    end

    def find_user(user)
      return if user.empty?
      return Etc.getpwnam(user) unless user.match?(/\A\d+\z/)

      begin
        Etc.getpwuid(user.to_i)
      rescue ArgumentError # as with systemd, a number needs no entry
        Etc::Passwd.new.tap { |a| a.name, a.uid, a.gid, a.dir, a.shell = user, user.to_i, user.to_i, "/", "" }
      end
    rescue ArgumentError
      raise Failure.new(USER, "user #{user} does not exist")
    end

    def find_group(group)
      group.match?(/\A\d+\z/) ? group.to_i : Etc.getgrnam(group).gid
    rescue ArgumentError
      raise Failure.new(GROUP, "group #{group} does not exist")
    end

    def change_user(orders, account)
      extra = orders.fetch("extra_group", []).map { |group| find_group(group) }
      uid = account ? account.uid : Process.uid
      gid = orders.key?("group") ? find_group(one(orders, "group")) : account ? account.gid : Process.gid
      # The new user may not be able to read what it takes.
      @prctl = prctl if account || orders.key?("no_new_privileges") || orders.key?("death_signal")
      return if uid == Process.uid && gid == Process.gid && (extra - Process.groups).empty?

      give_away(orders, uid) if account
      step(GROUP, "supplementary groups") do
        Process.initgroups(account.name, gid) if account
        Process.groups |= extra unless extra.empty?
      end
      step(GROUP, "group #{gid}") { Process::Sys.setresgid(gid, gid, gid) }
      step(USER, "user #{uid}") { Process::Sys.setresuid(uid, uid, uid) }
      raise Failure.new(USER, "the user did not change") if [Process.uid, Process.euid] != [uid, uid]

      @prctl&.call(PR_SET_DUMPABLE, 1) # as execve(2) does: /proc/self is its own
    end

    # Gives its new user the notify socket, and the pipes that were made for its output.
    def give_away(orders, uid)
      given(orders, "notify") do |path|
        step(USER, "giving the notify socket to user #{uid}") do
          File.open(path, 0o10000000 | File::NOFOLLOW) do |file| # O_PATH
            own = file.stat.socket? && [Process.euid, uid].include?(file.stat.uid)
            raise Failure.new(USER, "#{path} is not a socket of its own") unless own

            File.chown(uid, nil, "/proc/self/fd/#{file.fileno}")
          end
        end
      end
      outputs(orders).each do |fd|
        File.chown(uid, nil, "/proc/self/fd/#{fd}") if io(fd).stat.pipe?
      rescue SystemCallError
        nil # without the right it can still be written to
      end
    end

    def restrict(orders)
      given(orders, "no_new_privileges") do
        step(NO_NEW_PRIVS, "no_new_privileges") { @prctl.call(PR_SET_NO_NEW_PRIVS, 1) }
      end
      given(orders, "death_signal") do # a change of user clears it, so it comes after that
        step(1, "death_signal") { @prctl.call(PR_SET_PDEATHSIG, Signal.list["KILL"]) }
        exit!(0) if Process.ppid != one(orders, "master").to_i # it ended before the signal was armed
      end
    end

    def prctl
      require "fiddle"
      long = Fiddle::TYPE_LONG
      function = Fiddle::Function.new(Fiddle.dlopen(nil)["prctl"], [Fiddle::TYPE_INT] + [long] * 4, Fiddle::TYPE_INT)
      lambda do |option, value|
        function.call(option, value, 0, 0, 0).zero? or raise SystemCallError.new("prctl", Fiddle.last_error)
      end
    rescue LoadError => e
      raise Failure.new(1, "prctl: #{e.message}")
    end

    def name_module(orders)
      handed = handed_down(orders).each.with_index(3).to_a
      sockets = orders.fetch("listen", []).size
      values = %w[fleet worker slot].to_h { |key| [key, one(orders, key)] }
      values.update("index" => one(orders, "index").to_i, "generation" => one(orders, "generation").to_i)
      values.update("listen" => handed.take(sockets), "stored" => handed.drop(sockets), "sockets" => nil)
      values.each { |key, value| Prefork.instance_variable_set("@#{key}", value) }
    end

    # Returns the entry with its arguments, when all that can fail before it is called
    # has been done.
    def job(orders)
      what = "after_fork #{one(orders, "after_fork")}"
      given(orders, "after_fork") { |name| resolve(name).call }
      what = "entry #{one(orders, "entry")}"
      entry = resolve(one(orders, "entry"))
      args = orders.key?("args") ? JSON.parse(one(orders, "args")) : []
      kwargs = orders.key?("kwargs") ? JSON.parse(one(orders, "kwargs"), symbolize_names: true) : {}
      @socket.close
      -> { entry.call(*args, **kwargs) }
    rescue Exception => e # whatever it is, the entry cannot be called
      warn e.full_message(highlight: false)
      fail_with(1, "#{what}: #{cause(e)}")
    end

    def resolve(name)
      feature, path = name.match(/\A(?:(.*[^:]):)?([^:].*)\z/m)&.captures
      require feature if feature
      constant, _, method = path.to_s.rpartition(".")
      (constant.empty? ? TOPLEVEL_BINDING.receiver : Object.const_get(constant)).method(method)
    end

    def fail_with(status, text)
      $stderr.syswrite("prefork: #{@slot || "a spare"}: #{text}\n") rescue nil
      say("failed", status.to_s, text) rescue nil
      exit!(status)
    end

    def broken(text)
      say("broken", text)
    ensure
      exit!(1)
    end

    def say(name, *texts)
      texts = texts.map { |text| text.to_s.tr("\0", " ").byteslice(0, TEXT) }
      @socket.send([name, *texts].join("\0"), Socket::MSG_NOSIGNAL)
    end

    # Blocks for one message; returns it and its descriptors. It is empty if none will come.
    def receive(size)
      message = @socket.recvmsg(size, 0, CONTROL, scm_rights: true)
      return ["", []] unless message # since Ruby 3.3

      data, _, flags, *controls = message
      cut = flags & (Socket::MSG_TRUNC | Socket::MSG_CTRUNC) != 0
      raise Failure.new(FDS, "the message did not arrive whole") if cut

      fds = controls.select { |c| c.cmsg_is?(:SOCKET, :RIGHTS) }.flat_map(&:unix_rights)
      [data.to_s.force_encoding(Encoding::UTF_8), fds]
    rescue Errno::ECONNRESET
      ["", []]
    end

    def parse(data)
      name, *parts = data.split("\0")
      [name.to_s, fields(parts)]
    end

    def fields(parts)
      parts.each_with_object({}) do |part, all|
        key, _, value = part.partition("=")
        (all[key] ||= []) << value
      end
    end

    def one(fields, key) = fields.fetch(key, [""]).last

    def given(orders, key) = orders.key?(key) && yield(one(orders, key))

    def outputs(orders) = [[1, "stdout"], [2, "stderr"]].filter_map { |number, key| number if orders.key?(key) }

    def handed_down(orders) = orders.fetch("listen", []) + orders.fetch("stored", [])

    def step(status, what)
      yield
    rescue SystemCallError, ArgumentError, RangeError => e
      raise Failure.new(status, "#{what}: #{e.message}")
    end

    def cause(error) = "#{error.class}: #{error.message.lines.first.to_s.strip}"

    def entitle(title, comm)
      Process.setproctitle(title) unless title.empty?
      File.write("/proc/self/comm", comm.byteslice(0, 15)) unless comm.empty?
    rescue SystemCallError
      nil # a title is not worth a failure
    end
  end
end

Prefork::Zygote.main.call
