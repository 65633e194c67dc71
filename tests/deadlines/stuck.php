<?php
function loop() {
    register_shutdown_function(fn() => error_log('cleaned up after loop'));
    $x = strlen('x');
    while (true) { $x++; }  # loop
}

function sleeps() {
    sleep(1000);  # sleep
}

function lock() {
    $one = fopen(__FILE__, 'r');
    $two = fopen(__FILE__, 'r');
    flock($one, LOCK_EX);
    flock($two, LOCK_EX);  # lock
}

function c() {
    file_get_contents(getenv('FIFO'));  # c
}

function pause($seconds) {
    usleep((int)($seconds * 1000000));  # pause
}

function spin($seconds) {
    for ($end = hrtime(true) + $seconds * 1e9; hrtime(true) < $end;);  # spin
}

[, $name, $seconds] = explode('/', $_SERVER['PATH_INFO'] . '//');
if (in_array($name, ['loop', 'sleep', 'lock', 'c'])) {
    FFI::cdef('void *signal(int number, intptr_t handler);')->signal(15, 1);  // SIGTERM, SIG_IGN
}
match ($name) {
    'loop' => loop(),
    'sleep' => sleeps(),
    'lock' => lock(),
    'c' => c(),
    'pause' => pause((float)$seconds),
    'spin' => spin((float)$seconds),
    default => null,
};
header('Content-Type: text/plain');
echo getmypid();
