# frozen_string_literal: true
# SPDX-License-Identifier: 0BSD
#
# A server of HTTP that needs nothing but Ruby: what its floor has loaded, all of its
# processes share.

require "json"
require "socket"

# Stands for what takes long to load, and memory: it is made once.
WORDS = Array.new(200_000) { |i| "word #{i}" }.to_h { |word| [word, word.hash] }.freeze

# The workers' entry.
module Web
  class << self
    def serve
      server = Prefork.sockets["http"].first
      trap("TERM") { exit } # prefork asks it to stop
      loop { answer(server.accept) }
    end

    # Is called in the floor: what Ruby notes down at the first use of code and constants
    # is then shared. Here it looks once whether all of WORDS is frozen, and writes that
    # to each of them.
    def warm = 10.times { page("GET / HTTP/1.1") }

    private

    def answer(client)
      request = client.gets.to_s.strip
      nil until [nil, "\r\n", "\n"].include?(client.gets) # the header
      client.write(page(request))
    rescue SystemCallError, IOError => e
      warn "#{Prefork.slot}: #{e.message}" # the client has gone
    ensure
      client.close
    end

    def page(request)
      who = { slot: Prefork.slot, pid: $$, generation: Prefork.generation }
      body = JSON.generate(**who, words: WORDS.size, request: request)
      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" \
        "Content-Length: #{body.bytesize}\r\nConnection: close\r\n\r\n#{body}"
    end
  end
end
