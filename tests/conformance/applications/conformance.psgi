# The conformance application in PSGI 1.102.
use strict;
use warnings;
use Digest::SHA;
use Fcntl;
use Time::HiRes;

my $scratch = $ENV{SCRATCH};
my @plain   = ('Content-Type' => 'text/plain');
my %path;

sub note {
    my ($name, $token) = @_;
    sysopen my $file, "$scratch/$name", O_WRONLY | O_CREAT | O_APPEND or die "$name: $!";
    syswrite $file, "$token\n";
    close $file;
}

sub token_of { my ($env) = @_; return $env->{QUERY_STRING} =~ /(?:^|&)watch=([^&]*)/ ? $1 : '' }

sub gate {
    my ($env) = @_;
    my $name = "$scratch/go-" . token_of($env);
    for (1 .. 2000) {
        return if -e $name;
        Time::HiRes::sleep(0.01);
    }
}

sub answer { my ($text, @fields) = @_; return [200, [@plain, @fields], [$text]] }

# A stream: the function is given what writes a piece.
sub stream {
    my ($make, @fields) = @_;
    return sub {
        my $writer = $_[0]->([200, [@plain, @fields]]);
        $make->(sub { $writer->write($_[0]) });
        $writer->close;
    };
}

sub each_piece {
    my ($env, $take) = @_;
    my ($got, $piece);
    $take->($piece) while $got = $env->{'psgi.input'}->read($piece, 65536);
    die "the client went away before its request was complete\n" unless defined $got;
}

$path{hello} = sub { return answer('hello, world', 'X-Method' => $_[0]{REQUEST_METHOD}) };
$path{echo}  = sub { my ($env) = @_; return stream(sub { my ($write) = @_; each_piece($env, sub { $write->($_[0]) }) }) };
$path{length} = sub {
    my ($env) = @_;
    my ($size, $digest) = (0, Digest::SHA->new(256));
    each_piece($env, sub { $size += length $_[0]; $digest->add($_[0]) });
    return answer("$size " . $digest->hexdigest . "\n");
};
$path{half} = sub {
    my ($env) = @_;
    # A chunked body would be received by a look at CONTENT_LENGTH; what is buffered has one that is known.
    my $known = $env->{'psgix.input.buffered'} || !magical($env);
    my $left  = $known ? int($env->{CONTENT_LENGTH} / 2) : 1000;
    my ($size, $piece, $got) = (0);
    while ($left && ($got = $env->{'psgi.input'}->read($piece, $left))) {
        $size += $got;
        $left = $known ? $left - $got : 0;
    }
    return answer("half $size\n");
};
sub magical { require B; return B::svref_2object(\$_[0]{CONTENT_LENGTH})->FLAGS & B::SVs_GMG() }
$path{never} = sub { return answer("never\n", 'Content-Length' => 6) };
$path{first} = sub { my ($env) = @_; return stream(sub { $_[0]->("first\n"); gate($env); $_[0]->("last\n") }) };
$path{late}  = sub { my ($env) = @_; gate($env); return $path{length}->($env) };
$path{hang}  = sub { my ($env, $ms) = @_; Time::HiRes::sleep($ms / 1000); return answer('too late') };
$path{'hang-read'} = sub { my ($env, $ms) = @_; each_piece($env, sub { }); return $path{hang}->($env, $ms) };
$path{sleep}  = sub { my ($env, $ms) = @_; Time::HiRes::sleep($ms / 1000); return answer('slept') };
$path{fields} = sub { my ($env) = @_; return answer(join '', map { "$_=$env->{$_}\n" } grep { !/\./ } sort keys %$env) };
$path{path_info} = sub { return answer($_[0]{PATH_INFO}) };
$path{cookies}   = sub { my ($env) = @_; return answer(defined $env->{HTTP_COOKIE} ? $env->{HTTP_COOKIE} : '') };
$path{status}    = sub {
    my ($env, $number) = @_;
    return [$number, [], []] if $number == 204 || $number == 304;
    return [$number, [@plain], ["status $number\n"]];
};
$path{headers} = sub {
    return answer('headers', (map { ("X-Many-$_" => $_) } 0 .. 49), 'Set-Cookie' => 'a=1', 'Set-Cookie' => 'b=2; Path=/',
        'Set-Cookie' => 'c=3', 'X-Long' => 'x' x 8000);
};
$path{inject} = sub { return answer('injected', 'X-Bad' => "a\r\nX-Injected: 1") };
$path{lint}   = sub { return answer('not seen', Status => 200) };
$path{stream} = sub { my ($env, $count) = @_; return stream(sub { $_[0]->("piece $_\n") for 0 .. $count - 1 }) };
$path{steps}  = sub { my ($env) = @_; return stream(sub { $_[0]->("one\n"); gate($env); $_[0]->("two\n") }) };
$path{large}  = sub {
    my ($env, $size) = @_;
    return stream(sub {
        my ($write) = @_;
        for (my $begin = 0; $begin < $size; $begin += 65536) {
            my $end = $begin + 65536 < $size ? $begin + 65536 : $size;
            my $block = '';
            for (my $at = $begin; $at < $end; $at += 16) { $block .= sprintf "%015d\n", $at }
            $write->(substr $block, 0, $end - $begin);
        }
    }, 'Content-Length' => $size);
};
$path{file} = sub { open my $file, '<', "$scratch/file" or die "file: $!"; return [200, [@plain], $file] };
$path{empty}  = sub { return [200, [@plain, 'Content-Length' => 0], []] };
$path{nobody} = sub { return [204, [], []] };
$path{early}  = sub {
    my ($env) = @_;
    $env->{'psgix.informational'}->(103, [Link => '</style.css>; rel=preload']);
    return answer('early');
};
$path{error}        = sub { die "conformance error\n" };
$path{'error-late'} = sub { return stream(sub { $_[0]->("part\n"); die "conformance error\n" }) };
$path{short} = sub { return answer('short', 'Content-Length' => 100) };
$path{long}  = sub { return answer('hello, and more', 'Content-Length' => 5) };
$path{log}   = sub { my ($env) = @_; $env->{'psgi.errors'}->print('conformance log ' . token_of($env) . "\n"); return answer('logged') };
$path{pid}   = sub { return answer($$) };
$path{after} = sub {
    my ($env) = @_;
    push @{$env->{'psgix.cleanup.handlers'}}, sub { gate($env); note('after', token_of($env)) };
    return answer('after');
};
$path{deadline} = sub {
    my ($env) = @_;
    my $at = $env->{'webserver.deadline'};
    return answer(defined $at ? sprintf '%.3f', $at - Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) : 'none');
};
$path{cancelled} = sub {
    my ($env) = @_;
    for (1 .. 2000) {
        if ($env->{'webserver.cancelled'}->()) { note('cancelled', token_of($env)); last }
        Time::HiRes::sleep(0.01);
    }
    return answer('nobody reads this');
};
$path{upgrade} = sub {
    my ($env) = @_;
    return [426, [@plain], ['no upgrade']] if lc($env->{HTTP_UPGRADE} || '') ne 'conformance';
    my $io = $env->{'psgix.io'};
    syswrite $io, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: conformance\r\nConnection: Upgrade\r\n\r\n";
    while (sysread $io, my $data, 65536) { syswrite $io, $data }
    close $io;
    return;
};

my $bare = sub {
    my ($env) = @_;
    my ($name, @rest) = split m{/}, substr $env->{PATH_INFO}, 1;
    my $code = $path{defined $name ? $name : ''} or return [404, [@plain], ['no such path']];
    my $token = token_of($env);
    if ($token) {
        note('begun', $token);
        push @{$env->{'psgix.cleanup.handlers'}}, sub { note('closed', $token) };
    }
    return $code->($env, @rest);
};

# Lint stands in between where Plack is there; it forbids what these try, or return once the connection is theirs.
my $checked = eval { require Plack::Middleware::Lint } ? Plack::Middleware::Lint->wrap($bare) : $bare;

sub { return ($_[0]{PATH_INFO} =~ m{^/(inject|upgrade)} ? $bare : $checked)->(@_) };
