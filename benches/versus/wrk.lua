-- What wrk sends, and one line of JSON at its end.
-- Arguments: METHOD BYTES [close] [headers]
--   close    a new connection for each request
--   headers  ten fields, two of them different in every request
-- Without `headers` the request is made once and no Lua runs while the load does.

function init(args)
  wrk.method = args[1]
  local bytes = tonumber(args[2])
  if wrk.method == "POST" then wrk.body = string.rep("x", bytes) end
  for i = 3, #args do
    if args[i] == "close" then wrk.headers["Connection"] = "close" end
    if args[i] == "headers" then unique_headers() end
  end
end

-- Eight fields that every client repeats, Host included, and two that no two requests share.
function unique_headers()
  local fixed = {
    "User-Agent: versus/1.0 (a typical client of an internal service)", "Accept: application/json",
    "Accept-Encoding: gzip, deflate", "Accept-Language: en-GB,en;q=0.9", "Cache-Control: no-cache",
    "Authorization: Bearer 5f2b1c0d9e8a7f6b5c4d3e2f1a0b9c8d7e6f5a4b", "X-Tenant: example",
  }
  local head = wrk.method .. " " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.host .. "\r\n"
    .. table.concat(fixed, "\r\n") .. "\r\n"
  local format = string.format
  local number = 0
  function request()
    number = number + 1
    return head .. format("X-Request-Id: %016x\r\nTraceparent: 00-%032x-%016x-01\r\n\r\n", number, number * 7919, number)
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"us":%d,"p50":%d,"p99":%d,"p999":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect, e.read, e.write, e.status, e.timeout))
end
