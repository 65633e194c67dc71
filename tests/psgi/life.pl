# Processes: exit, fork, signals, destructors, what hangs.
use strict;
use warnings;
use POSIX ();
use Time::HiRes ();

my @plain = ('Content-Type' => 'text/plain');
our $seen = '';
$SIG{USR2} = sub { $seen .= 'USR2 ' };
$SIG{TERM} = sub { $seen .= 'TERM ' };

sub response { return [200, [@plain], [@_]] }

END { main::write_note("end of $$") if defined &main::write_note }

our $guard = bless {}, 'AtEnd';    # for ever

sub deep { my ($code) = @_; my @sorted = sort { $code->(); 0 } 1, 2; return @sorted }

return {
    hello => sub { return response('hello, world') },
    pid => sub { return response($$) },
    exit => sub {
        my ($env) = @_;
        my ($code, $where) = split /,/, $env->{QUERY_STRING};
        local $seen = 'not given back';
        my $inside = bless {}, 'Inside';
        if (!$where) { exit $code }
        elsif ($where eq 'sort') { deep(sub { exit $code }) }
        elsif ($where eq 'eval') { eval { eval "exit $code"; 1 } }
        elsif ($where eq 'stream') { return sub { my $w = $_[0]->([200, [@plain]]); $w->write('part'); exit $code } }
        elsif ($where eq 'closed') { return sub { my $w = $_[0]->([200, [@plain]]); $w->write('whole'); $w->close; exit $code } }
        elsif ($where eq 'getline') { return [200, [@plain], bless {}, 'Exits'] }
        elsif ($where eq 'destroy') { my $body = bless {}, 'ExitsLate'; return response('answered') }
    },
    seen => sub { my $now = $seen; return response($now) },
    fork => sub {
        my ($env) = @_;
        my @out;
        for my $how ($env->{QUERY_STRING} eq 'die' ? 'die' : qw(exit 3)) {
            my $pid = fork;
            die "fork: $!" unless defined $pid;
            if (!$pid) {
                die "in the child\n" if $how eq 'die';
                exit 5;
            }
            waitpid $pid, 0;
            push @out, $? >> 8;
        }
        my $said = `echo from a program`;
        push @out, system('sh', '-c', 'exit 7') >> 8, $said;
        return response(join ' ', $$, @out);
    },
    child => sub {
        # What the application starts can be ended and interrupted like anybody's.
        my @out;
        for my $name (qw(TERM INT HUP)) {
            my $pid = open my $pipe, '-|', 'sleep', '60' or die $!;
            kill $name, $pid;
            waitpid $pid, 0;
            push @out, $? & 127;
        }
        open my $pipe, '-|', 'yes' or die $!;
        close $pipe;
        return response(join ' ', @out, $? & 127);
    },
    signals => sub {
        kill 'USR2', $$;
        { local $SIG{TERM} = sub { $seen .= 'local '; }; kill 'TERM', $$; Time::HiRes::sleep(0.01) }
        return response($seen);
    },
    random => sub { return response(join ' ', $$, map { int rand 1e9 } 1 .. 3) },
    hang => sub {
        my ($env) = @_;
        return Stuck::outer($env->{QUERY_STRING});
    },
    sleep => sub { Time::HiRes::sleep($_[0]{QUERY_STRING}); return response('slept') },
    leak => sub {
        # A little of everything, for many requests.
        my ($env) = @_;
        $env->{'psgi.input'}->read(my $body, 100);
        $env->{'mine.object'} = bless {env => {%$env, 'psgi.input' => undef}}, 'Small';
        push @{$env->{'psgix.cleanup.handlers'}}, sub { return };
        my %how = (
            array => sub { return response('x' x 100) },
            die => sub { die bless {}, 'Small' },
            exit => sub { exit 1 },
            file => sub { open my $file, '<', 'data' or die $!; return [200, [@plain], $file] },
            lines => sub { return [200, [@plain], bless [1 .. 5], 'Small'] },
            stream => sub { return sub { my $w = $_[0]->([200, [@plain]]); $w->write('x') for 1 .. 3; $w->close } },
            delayed => sub { return sub { $_[0]->([200, [@plain], ['x']]) } },
            keep => sub { our @last = @$env{qw(psgi.input psgi.errors psgix.io)}; return response('kept') },
        );
        return $how{$env->{QUERY_STRING}}->();
    },
};

package Small;
sub getline { return shift @{$_[0]} }
sub close   { return 1 }
sub DESTROY { return }

package AtEnd;
sub DESTROY { main::write_note("destroyed in $$ " . ${^GLOBAL_PHASE}) if defined &main::write_note }

package Inside;
sub DESTROY { main::write_note('unwound') }

package Exits;
sub getline { exit 4 }
sub close   { main::write_note('closed by exit') }

package ExitsLate;
sub DESTROY { exit 6 }

package Stuck;
sub outer { my ($how) = @_; return inner($how) }
sub inner {
    my ($how) = @_;
    while ($how eq 'loop') { my $x = 1; $x++ }
    my @sorted = $how eq 'sort' ? sort { eval { Time::HiRes::sleep(30); 1 }; $a <=> $b } 2, 1 : ();
    return [200, [@plain], ["late"]];
}
