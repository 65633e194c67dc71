# PSGI::Extensions, and what this server adds.
use strict;
use warnings;
use Time::HiRes ();

my @plain = ('Content-Type' => 'text/plain');

sub reply { return [200, [@plain], [@_]] }

return {
    cleanup => sub {
        my ($env) = @_;
        push @{$env->{'psgix.cleanup.handlers'}},
            sub { main::write_note("first $_[0]{QUERY_STRING} $_[0]{'mine.own'}") },
            sub { die "a cleanup that dies\n" },
            sub { main::write_note('second'); push @{$_[0]{'psgix.cleanup.handlers'}}, sub { main::write_note('third') } };
        $env->{'mine.own'} = 'seen';
        return reply($env->{'psgix.cleanup'});
    },
    cleanup_waits => sub {
        my ($env) = @_;
        push @{$env->{'psgix.cleanup.handlers'}}, sub {
            main::write_note('waiting');
            for (1 .. 2000) { last if -e 'go'; Time::HiRes::sleep(0.01) }
            main::write_note('waited');
        };
        return reply('answered');
    },
    cleanup_dies => sub {
        my ($env) = @_;
        push @{$env->{'psgix.cleanup.handlers'}}, sub { main::write_note('cleaned') };
        die "with a cleanup\n" if $env->{QUERY_STRING} eq 'die';
        exit 3 if $env->{QUERY_STRING} eq 'exit';
        return sub { $_[0]->([200, [@plain]]); return };
    },
    harakiri => sub {
        my ($env) = @_;
        if ($env->{QUERY_STRING} eq 'now') { $env->{'psgix.harakiri.commit'} = 1 }
        if ($env->{QUERY_STRING} eq 'later') { push @{$env->{'psgix.cleanup.handlers'}}, sub { $_[0]{'psgix.harakiri.commit'} = 1 } }
        return reply("$$ $env->{'psgix.harakiri'}");
    },
    informational => sub {
        my ($env) = @_;
        my $inform = $env->{'psgix.informational'};
        my $sent = $inform->(103, [Link => '</style.css>; rel=preload', Link => '</more.js>; rel=preload']);
        my @refused = map { eval { $inform->(@$_); 1 } ? 'taken' : $@ =~ /\A(.*?) at / } [103], [200, []], [103, ['X-A' => "a\nb"]];
        return sub {
            my $writer = $_[0]->([200, [@plain]]);
            push @refused, eval { $inform->(103, []); 1 } ? 'taken' : $@ =~ /\A(.*?) at /;
            $writer->write(join "\n", $sent ? 'sent' : 'not sent', @refused);
            $writer->close;
        };
    },
    deadline => sub {
        my ($env) = @_;
        my $at = $env->{'webserver.deadline'};
        return reply(defined $at ? sprintf '%.1f', $at - Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) : 'none');
    },
    cancelled => sub {
        my ($env) = @_;
        my $cancelled = $env->{'webserver.cancelled'};
        main::write_note('not yet') unless $cancelled->();
        for (1 .. 2000) { last if $cancelled->(); Time::HiRes::sleep(0.01) }
        main::write_note($cancelled->() ? 'cancelled' : 'never');
        return reply('nobody reads this');
    },
    look => sub {
        my ($env) = @_;
        # A look at the connection, or a copy of all, takes nothing over.
        my %copy = %$env;
        my $io = $env->{'psgix.io'};
        return reply(ref $io, ' ', exists $copy{'psgix.io'} ? 'there' : 'missing', ' ', defined $io ? 'defined' : 'undef');
    },
    socket => sub {
        my ($env) = @_;
        my $io = $env->{'psgix.io'};
        syswrite $io, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: $env->{HTTP_UPGRADE}\r\nConnection: Upgrade\r\n\r\n";
        while (sysread $io, my $data, 1000) { syswrite $io, uc $data }
        main::write_note('the client has ended');
        close $io;
        return reply('this is not sent');
    },
    buffered => sub {
        my ($env) = @_;
        my $io = $env->{'psgix.io'};
        print {$io} "HTTP/1.1 101 Switching Protocols\r\nUpgrade: $env->{HTTP_UPGRADE}\r\nConnection: Upgrade\r\n\r\n";
        while (my $line = <$io>) { $io->print("line $line") }
        return;
    },
    byhand => sub {
        my ($env) = @_;
        my $io = $env->{'psgix.io'};
        $io->print("HTTP/1.1 200 Fine\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nby hand");
        return sub { die "not called\n" };
    },
};
